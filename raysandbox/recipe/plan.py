"""How a recipe runs: which operators are fused, in what passes, over which pieces of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raysandbox.core.errors import ConfigError, Problem
from raysandbox.core.keys import digest
from raysandbox.ops.base import DatasetOperator, Operator, Rewriter
from raysandbox.recipe.datasets import locate
from raysandbox.recipe.draws import draw
from raysandbox.recipe.inputs import InputFile, ReadTask, plan_reads
from raysandbox.recipe.readers import BLOCK_BYTES, count_rows
from raysandbox.recipe.schema import Recipe

__all__ = ["InputPlan", "Segment", "choose_engine", "plan_input", "segments_of"]

LOCAL_LIMIT = 64 << 20  # bytes of input up to which `engine: auto` stays in this process
_SMALLEST_BLOCK = 1 << 20
_BLOCKS = 8  # at least so many, as far as blocks do not get tiny: they keep the workers evenly busy
# Where rows name files, the rows of a task at most, and the bytes that one counts for.
_MEDIA = {"image": (128, 100 << 10), "audio": (16, 1 << 20), "video": (16, 1 << 20)}


@dataclass(frozen=True)
class Segment:
    """One pass over the rows: batch operators, then dataset operators that decide after it."""

    ops: tuple[Operator, ...]
    deciders: tuple[DatasetOperator, ...]


@dataclass(frozen=True)
class InputPlan:
    """What is read.

    Attributes:
        tasks: units of work, in input order.
        size: bytes of content, estimated for compressed files and for the media that rows name.
        files: every file, empty ones too.
        warnings: what the user should know.
    """

    tasks: tuple[ReadTask, ...]
    size: int
    files: tuple[InputFile, ...]
    warnings: tuple[str, ...]


def segments_of(operators: Sequence[Operator]) -> list[Segment]:
    """Cuts a recipe after each run of dataset operators; the last segment ends without one.

    One that rewrites rows stands alone: those before it must have decided, those after it see other rows.
    """
    segments = [Segment((), ())]
    for op in operators:
        last = segments[-1]
        if last.deciders and any(isinstance(each, Rewriter) for each in (op, *last.deciders)):
            segments.append(Segment((), ()))
            last = segments[-1]
        if isinstance(op, DatasetOperator):
            segments[-1] = replace(last, deciders=(*last.deciders, op))
        elif last.deciders:
            segments.append(Segment((op,), ()))
        else:
            segments[-1] = replace(last, ops=(*last.ops, op))
    return [*segments, Segment((), ())] if segments[-1].deciders else segments


def choose_engine(wanted: str, size: int, *, done: bool = False) -> str:
    """The engine to use: the wanted one; "auto" decides by the bytes of input that are left to do."""
    if wanted != "auto":
        return wanted
    return "local" if done or size <= LOCAL_LIMIT else "ray"


def plan_input(recipe: Recipe, block_bytes: int | None = None) -> InputPlan:
    """Finds a recipe's files and cuts them into tasks; a mix also draws its rows.

    Args:
        recipe: the recipe.
        block_bytes: bytes per task; by default small enough for several tasks, at most 16 MB, and
            small numbers of rows where they name media that an operator reads.

    Raises:
        ConfigError: no input is given, or it does not exist.
    """
    parts = recipe.parts()
    if not parts:
        raise ConfigError([Problem(None, None, "dataset_path", "is required", "name a file, folder or glob")])
    located = [locate(part, recipe.file_suffixes()) for part in parts]
    files = [file for part in located for file in part.files]
    warnings = [warning for part in located for warning in part.warnings]
    warnings += [f"{file.path} is empty" for file in files if file.size == 0]
    size, block = _sizes(recipe, files)
    block_bytes = block_bytes or block
    weights, windows = [part.weight for part in parts], [part.window for part in located]
    wanted = recipe.dataset.max_sample_num if recipe.dataset else None
    if wanted is None and len(set(weights)) <= 1 and not any(windows):
        tasks = plan_reads(files, block_bytes)
    else:
        planned = [plan_reads(part.files, block_bytes) for part in located]
        tasks = draw(planned, windows, weights, wanted, recipe.seed)
    return InputPlan(tuple(tasks), size, tuple(files), tuple(warnings))


def _sizes(recipe: Recipe, files: Sequence[InputFile]) -> tuple[int, int]:
    """Bytes of the input, media included, and bytes of the files themselves that a task should have."""
    size = sum(file.weight for file in files)
    block = min(BLOCK_BYTES, max(_SMALLEST_BLOCK, size // _BLOCKS))
    media = [_MEDIA[kind] for op in recipe.operators() for kind in op.reads if kind in _MEDIA]
    if not media or size == 0:
        return size, block
    row = _bytes_per_row(files)
    fewest_rows, row_weight = min(rows for rows, _ in media), max(weight for _, weight in media)
    return size + int(size / row * row_weight), max(1, min(block, size // _BLOCKS, int(row * fewest_rows)))


def _bytes_per_row(files: Sequence[InputFile]) -> float:
    """About how many bytes of its file a row takes, from the first piece of the first file with rows; else 1."""
    tasks = (task for file in files for task in plan_reads([file], _SMALLEST_BLOCK))
    sample = next(tasks, ReadTask(()))
    return max(sample.size / max(sum(count_rows(span) for span in sample.spans), 1), 1.0)


def operator_seed(seed: int, position: int) -> int:
    """Seed of one operator: depends on the recipe's seed and on where it stands, nothing else."""
    return int(digest([seed, position])[:15], 16)
