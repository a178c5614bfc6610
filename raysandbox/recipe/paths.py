"""The paths in a recipe that may still be incomplete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.names import is_remote, local_name
from raysandbox.ops.base import OPERATORS
from raysandbox.recipe.mixture import parse_dataset_path

__all__ = ["recipe_models", "recipe_paths"]


def recipe_paths(raw: Mapping[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """What a raw recipe reads and writes; what is malformed is left to `recipe_problems`.

    Returns:
        the input files, folders, globs and URLs, less ids of hubs, and the files that operators read;
        the `export_path`, or None for none and for a URL, where nothing can be looked at before the job.
    """
    dataset_path, dataset = raw.get("dataset_path"), raw.get("dataset")
    reads: list[str] = []
    if isinstance(dataset_path, str):
        try:
            reads = [part.path for part in parse_dataset_path(dataset_path)]
        except ValueError:
            reads = []
    elif isinstance(dataset, Mapping) and isinstance(dataset.get("configs"), list):
        parts = [item for item in dataset["configs"] if isinstance(item, Mapping)]
        reads = [path for item in parts if isinstance(path := item.get("path"), str) and not _is_hub_id(item, path)]
    export_path = raw.get("export_path")
    is_file = isinstance(export_path, str) and export_path != "" and not is_remote(export_path)
    return (*map(local_name, reads), *_of_operators(raw, PathRole.INPUT)), export_path if is_file else None


def recipe_models(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The models that the operators of a raw recipe load: folders, files, ids of hubs."""
    return _of_operators(raw, PathRole.MODEL)


def _of_operators(raw: Mapping[str, Any], role: PathRole) -> tuple[str, ...]:
    steps = raw.get("process")
    found: dict[str, None] = {}
    for step in steps if isinstance(steps, list) else []:
        named = {step: None} if isinstance(step, str) else step
        for name, parameters in named.items() if isinstance(named, Mapping) else ():
            if name in OPERATORS and isinstance(parameters, Mapping | None):
                refs = path_refs(OPERATORS.get(name), parameters or {})
                found |= {ref.path: None for ref in refs if ref.role is role}
    return tuple(found)


def _is_hub_id(item: Mapping[str, Any], path: str) -> bool:
    return item.get("type") == "remote" and not is_remote(path) and not os.path.exists(os.path.expanduser(path))
