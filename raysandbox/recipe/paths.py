"""The paths in a recipe that may still be incomplete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysandbox.recipe.mixture import parse_dataset_path

__all__ = ["recipe_paths"]


def recipe_paths(raw: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """What a raw recipe reads and writes; what is malformed is left to `recipe_problems`.

    Returns:
        the input files, folders and globs; the `export_path`, or None.
    """
    dataset_path, dataset = raw.get("dataset_path"), raw.get("dataset")
    reads: list[str] = []
    if isinstance(dataset_path, str):
        try:
            reads = [part.path for part in parse_dataset_path(dataset_path)]
        except ValueError:
            reads = []
    elif isinstance(dataset, Mapping) and isinstance(dataset.get("configs"), list):
        paths = [item.get("path") for item in dataset["configs"] if isinstance(item, Mapping)]
        reads = [path for path in paths if isinstance(path, str)]
    export_path = raw.get("export_path")
    return tuple(reads), export_path if isinstance(export_path, str) and export_path else None
