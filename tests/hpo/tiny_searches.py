"""Configurations of small searches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROWS = 40  # texts, of 1, 2, … characters


def filtering(workspace: Path, hpo: Mapping[str, Any], **more: Any) -> Path:
    """A search over a filter's threshold: `process.rows_out` is how many texts are as long."""
    recipe = {
        "dataset_path": str(workspace / "texts.jsonl"),
        "export_path": "./outputs/search/kept.jsonl",
        "process": [{"text_length_filter": {"min_len": 1}}],
    }
    job = {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["kept"]}
    return write(workspace, hpo, [job], **more)


def training(
    workspace: Path, hpo: Mapping[str, Any], resources: Mapping[str, Any] | None = None, **trainer: Any
) -> Path:
    """A search over trainings that pretend: `train.loss` is reported in each step."""
    extra = {"type": "fake", "train_dataset": str(workspace / "texts.jsonl"), "work_dir": "./outputs/search/model"}
    job = {"hook": "TrainModelHook", "meta_name": "train", "extra_configs": {**extra, **trainer}, "output": ["model"]}
    return write(workspace, hpo, [{**job, "resources": dict(resources or {})}])


def write(workspace: Path, hpo: Mapping[str, Any], jobs: list[dict[str, Any]], **more: Any) -> Path:
    """Writes a configuration."""
    path = workspace / "search.yaml"
    config = {"experiment_name": "search", "hpo_config": dict(hpo), "execution_job_configs": jobs, **more}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
