"""Refining a recipe's thresholds."""
