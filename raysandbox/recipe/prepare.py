"""From a recipe file to what a run needs of it: shared by processing, analysis and scoring."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raysandbox.core.errors import ConfigError, Problem
from raysandbox.core.files import cache_dir
from raysandbox.core.keys import DigestMemo, FileStamps, digest
from raysandbox.core.names import is_remote, local_name
from raysandbox.ops.base import Operator
from raysandbox.recipe.blocks import file_suffix
from raysandbox.recipe.fused import FusedOps, needs_of
from raysandbox.recipe.inputs import ReadTask
from raysandbox.recipe.parts import Sink, Unit
from raysandbox.recipe.plan import InputPlan, segments_of
from raysandbox.recipe.problems import parse_recipe, recipe_problems
from raysandbox.recipe.schema import Recipe, export_format
from raysandbox.recipe.units import Work
from raysandbox.recipe.writers import Target

__all__ = ["load_recipe", "quarantine_file", "target_of", "units_of", "work_of"]


def load_recipe(
    source: Mapping[str, Any] | str | Path | Recipe, *, allow_user_code: bool = False
) -> tuple[Recipe, list[str]]:
    """A recipe and the warnings about it.

    Args:
        source: the recipe, its mapping, or its file.
        allow_user_code: whether code of the user may run.

    Raises:
        ConfigError: it is wrong; with every problem.
    """
    if isinstance(source, Recipe):
        return source, []
    file = None
    if isinstance(source, str | Path):
        file, source = str(source), _read_yaml(Path(source))
    recipe = parse_recipe(source, file, allow_user_code=allow_user_code)
    found = recipe_problems(source, allow_user_code=allow_user_code)
    return recipe, [problem.message for problem in found]


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), None, "", f"is not YAML: {error}")]) from None
    if not isinstance(content, dict):
        raise ConfigError([Problem(str(path), None, "", "is not a recipe", "write `process: [...]`")])
    return content


def target_of(recipe: Recipe) -> Target:
    """Where a recipe writes.

    Raises:
        ConfigError: it does not say.
    """
    if not recipe.export_path:
        raise ConfigError([Problem(None, None, "export_path", "is required", "name the output file")])
    format, suffix = export_format(recipe.export_path, recipe.export_type)
    if is_remote(recipe.export_path):
        folder, _, name = recipe.export_path.rpartition("/")
        path = cache_dir() / "exports" / digest(recipe.export_path)[:16] / name
        return Target(path, format, suffix, recipe.export_shard_size, folder)
    path = Path(local_name(recipe.export_path)).expanduser().absolute()
    return Target(path, format, suffix, recipe.export_shard_size)


def quarantine_file(export_path: Path, folder: Path | None) -> Path:
    """Where bad rows go; the suffix keeps them out of a folder's data."""
    return (folder or export_path.parent).absolute() / f"{export_path.name}.quarantine"


def units_of(plan: InputPlan, memo: DigestMemo | None = None) -> list[Unit]:
    """One unit per task, named by the content of its rows if there is a memo of digests."""
    if memo is None:
        return [Unit(index, task) for index, task in enumerate(plan.tasks)]
    # The stamps first: what is written later is not what the name is made of.
    return [Unit(index, task, stamps=_stamps(task), digest=_name(task, memo)) for index, task in enumerate(plan.tasks)]


def _stamps(task: ReadTask) -> FileStamps:
    return FileStamps.of(span.file.path for span in task.spans if os.path.isfile(span.file.path))


def _name(task: ReadTask, memo: DigestMemo) -> str:
    """Digest of the files' content and of which rows of them are read; "" for files that have none.

    The folder belongs to it, since relative paths in rows start there, and the suffix, which operators may ask for.
    """
    spans = []
    for span in task.spans:
        content = span.file.stamp or memo.of(Path(span.file.path))
        if not content:
            return ""
        picked = None if span.picked is None else hashlib.sha256(np.packbits(span.picked).tobytes()).hexdigest()
        file = (span.file.format, span.file.compression, span.file.folder, file_suffix(span.file.path))
        spans.append([content, *file, span.start, span.end, picked])
    return digest(spans)


def work_of(recipe: Recipe, operators: Sequence[Operator], sink: Sink, *, analysis: bool = False) -> Work:
    """What units do in the first segment of a recipe, but for the folder that they leave files in.

    Args:
        recipe: the recipe.
        operators: its operators, as they are to run.
        sink: what becomes of the rows.
        analysis: whether filters drop nothing and all statistics are reported.
    """
    keys = recipe.field_keys()
    first = segments_of(operators)[0]
    return Work(
        FusedOps(
            first.ops,
            first.deciders,
            keys,
            keep_all=analysis,
            row_timeout_s=recipe.row_timeout_s,
            token=uuid.uuid4().hex,
        ),
        needs_of(operators, keys),
        Path(),
        sink,
        keep_stats=analysis or recipe.keep_stats_in_res_ds,
        keep_hashes=recipe.keep_hashes_in_res_ds,
        gather_stats=analysis,
        trace=None if analysis else recipe.trace_spec(),
        validators=recipe.row_validators(),
    )
