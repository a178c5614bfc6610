"""Watching a run: metrics to `metrics.jsonl` first and to wandb second."""
