"""The order of filters, when a recipe leaves it to us (`op_fusion`): cheap and selective ones first.

Filters that follow one another keep the same rows in any order, since a statistic depends only on
its row; what changes is how many rows the expensive ones see. Those that read statistics stay behind
the filters that compute them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from raysandbox.ops.base import Filter, Operator
from raysandbox.recipe.blocks import Block
from raysandbox.recipe.fused import Companions, FusedOps

__all__ = ["cheap_first", "measured_first"]

_SAMPLE_ROWS = {"video": 8, "image": 64}
_MOST_SAMPLE_ROWS = 1000


def cheap_first(operators: Sequence[Operator]) -> list[Operator]:
    """Sorts each run of filters by kind: of texts and fields, of sounds, images, videos, with a model."""
    return _sorted_runs(operators, dict(enumerate(map(_kind, operators))))


def _kind(op: Operator) -> tuple[bool, int, bool]:
    kinds = {"audio": 1, "image": 2, "video": 3}
    media = max((kinds.get(kind, 0) for kind in op.reads), default=0)
    return op.needs_model, media, bool(op.frame_requests())


def measured_first(operators: Sequence[Operator], fused: FusedOps, sample: Block) -> list[Operator]:
    """Sorts each run of filters by seconds per row that they drop, measured on some rows.

    That order is the cheapest when filters drop rows independently of one another. Operators
    behind the first one that decides over all rows are sorted by kind.

    Args:
        operators: the recipe's operators.
        fused: those of its first segment.
        sample: the first rows of the input.
    """
    most = min((_SAMPLE_ROWS[kind] for op in fused.ops for kind in op.reads if kind in _SAMPLE_ROWS), default=None)
    rows = Block(sample.table.slice(0, most or _MOST_SAMPLE_ROWS), sample.places, sample.rows, sample.added)
    quick = tuple(op for op in fused.ops if not op.needs_model)
    everything = FusedOps(quick, (), fused.keys, keep_all=True, row_timeout_s=fused.row_timeout_s, token=fused.token)
    tallies = everything.tallies()
    everything.run(rows, Companions(everything.tallies()))  # loads models and kernels
    outcome = everything.run(rows, Companions(tallies))
    costs: dict[int, float] = {}
    took = dict(zip(map(id, quick), tallies, strict=True))
    for index, op in enumerate(fused.ops):
        if op.needs_model:
            costs[index] = math.inf  # not loaded for this: its place is behind the others anyway
        elif isinstance(op, Filter) and outcome.batch.num_rows:
            kept = op.keep({stat.key: outcome.batch.stats[stat.key] for stat in op.statistics()})
            costs[index] = took[id(op)].seconds / max(float(np.mean(~kept)), 1 / len(kept))
    measured = _sorted_runs(operators[: len(fused.ops)], costs)
    return [*measured, *cheap_first(operators[len(fused.ops) :])]


def _sorted_runs(
    operators: Sequence[Operator], costs: dict[int, float] | dict[int, tuple[bool, int, bool]]
) -> list[Operator]:
    """Each run of filters by ascending cost, equal ones as they stand; others stay where they are."""
    runs = itertools.groupby(range(len(operators)), lambda index: index in costs and _may_move(operators[index]))
    order = [index for filters, run in runs for index in (sorted(run, key=costs.__getitem__) if filters else run)]
    return [operators[index] for index in order]


def _may_move(op: Operator) -> bool:
    return isinstance(op, Filter) and "stats" not in op.reads
