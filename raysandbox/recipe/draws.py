"""Which rows of its parts a data set takes: windows, limits and the draw of a mix."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysandbox.recipe.inputs import ReadTask, Span
from raysandbox.recipe.mixture import Window, row_quotas
from raysandbox.recipe.readers import count_rows

__all__ = ["draw"]


@dataclass(frozen=True)
class _Counted:
    """The spans of a part and their numbers of rows.

    Attributes:
        spans: all of them.
        counts: rows of the first of them, as far as they can matter.
        tasks: number of spans per task.
        rows: the rows that the part's window leaves, as positions.
    """

    spans: Sequence[Span]
    counts: Sequence[int]
    tasks: Sequence[int]
    rows: range

    @property
    def is_complete(self) -> bool:
        """Whether the rows of every span are counted."""
        return len(self.counts) == len(self.spans)


def draw(
    planned: Sequence[Sequence[ReadTask]],
    windows: Sequence[Window | None],
    weights: Sequence[float],
    wanted: int | None,
    seed: int,
) -> list[ReadTask]:
    """Marks the rows that are taken of each part: at random, without repetition, in input order.

    Args:
        planned: per part what would read all of it.
        windows: per part which of its rows belong to it; None for all.
        weights: relative share of each part.
        wanted: rows of all parts together; None for as many as the weights allow.
        seed: of the choice.
    """
    parts = [_count(tasks, window) for tasks, window in zip(planned, windows, strict=True)]
    chosen: list[ReadTask] = []
    for index, quota in enumerate(row_quotas(weights, [len(part.rows) for part in parts], wanted)):
        part = parts[index]
        if part.is_complete and quota == sum(part.counts):
            chosen += planned[index]
            continue
        # Row numbers of the part, so that the choice does not depend on how it was cut.
        generator = np.random.default_rng([seed, index])
        picked = np.zeros(sum(part.counts), dtype=bool)
        if quota == len(part.rows):
            picked[part.rows.start : part.rows.stop] = True
        else:
            picked[part.rows.start + generator.choice(len(part.rows), quota, replace=False)] = True
        chosen += _marked(part, picked)
    return chosen


def _count(tasks: Sequence[ReadTask], window: Window | None) -> _Counted:
    """Counts rows until the window's end is reached, if it is known before all are counted."""
    spans = [span for task in tasks for span in task.spans]
    enough = None if window is None else window.enough
    counts: list[int] = []
    for span in spans:
        if enough is not None and sum(counts) >= enough:
            break
        counts.append(count_rows(span))
    total = sum(counts)
    rows = range(total) if window is None else window.rows(total)
    return _Counted(spans, counts, [len(task.spans) for task in tasks], rows)


def _marked(part: _Counted, picked: np.ndarray) -> Iterator[ReadTask]:
    """The tasks with their marked rows; what has none is left out."""
    edges = list(itertools.accumulate(part.counts, initial=0))
    marks = iter([picked[start:end] for start, end in itertools.pairwise(edges)])
    spans = iter(part.spans)
    for length in part.tasks:
        pairs = zip(itertools.islice(spans, length), marks, strict=False)
        kept = tuple(replace(span, picked=mark) for span, mark in pairs if mark.any())
        if kept:
            yield ReadTask(kept)
