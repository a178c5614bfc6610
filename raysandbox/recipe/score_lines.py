"""Scores by line: of an output whose lines have digests beside it, only lines that are new are read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysandbox.recipe.plan import InputPlan
from raysandbox.recipe.remote import is_remote
from raysandbox.recipe.row_digests import RowDigests, read_sidecar
from raysandbox.recipe.score_store import KnownScores, ScoreIndex, merged_scores

__all__ = ["ScoredLines", "scored_lines"]

_WORTH_IT = 0.5  # share of a file's bytes up to which new lines are scored on their own


@dataclass(frozen=True, eq=False)
class ScoredLines:
    """The lines of a file, and the scores that are known of them.

    Attributes:
        path: the file.
        rows: digests of its lines.
        index: scores by line.
        known: what it held.
        positions: of each line in `known`, -1 where it is unknown.
    """

    path: Path
    rows: RowDigests
    index: ScoreIndex
    known: KnownScores
    positions: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether the scores of all lines are known."""
        return not self._missing.any()

    @property
    def mostly_known(self) -> bool:
        """Whether few enough lines are new that they are best scored on their own."""
        return int(self.rows.sizes[self._missing].sum()) <= _WORTH_IT * int(self.rows.sizes.sum())

    @property
    def _missing(self) -> np.ndarray:
        return self.positions < 0

    def scores(self) -> pa.Table:
        """The scores of all lines, which are known."""
        return self.known.take(self.positions)

    def with_new(self, made: pa.Table) -> pa.Table:
        """The scores of all lines, with those that have been made of the new ones."""
        return merged_scores(self.known.take(self.positions[~self._missing]), made, self._missing)

    def write_new(self, target: Path) -> bool:
        """Writes the new lines to a file; returns whether they are what their digests say."""
        with target.open("wb") as output:
            lines = list(self._new())
            output.writelines(lines)
        found = RowDigests.of_lines(lines)
        return np.array_equal(found.digests, self.rows.digests[self._missing])

    def _new(self) -> Iterator[bytes]:
        ends = np.cumsum(self.rows.sizes)
        starts = (ends - self.rows.sizes)[self._missing].tolist()
        with self.path.open("rb") as stream:
            for start, size in zip(starts, self.rows.sizes[self._missing].tolist(), strict=True):
                stream.seek(start)
                yield stream.read(size)

    def learn(self, scores: pa.Table) -> None:
        """Keeps the scores of all lines, as far as they are new, if the file is still the same."""
        now = read_sidecar(self.path)
        if now is None or not np.array_equal(now.digests, self.rows.digests) or scores.num_rows != len(now):
            return
        self.index.add(self.rows.digests[self._missing], scores.filter(pa.array(self._missing)))


def scored_lines(plan: InputPlan, index: ScoreIndex) -> ScoredLines | None:
    """What is known of an input by its lines; None for one that is more than a file of lines with digests beside it."""
    spans = itertools.chain.from_iterable(task.spans for task in plan.tasks)
    if len(plan.files) != 1 or any(span.picked is not None for span in spans):
        return None
    file = plan.files[0]
    if file.format != "jsonl" or file.compression or is_remote(file.path):
        return None
    rows = read_sidecar(Path(file.path))
    if rows is None or not len(rows):
        return None
    known = index.read()
    return ScoredLines(Path(file.path), rows, index, known, known.find(rows.digests))
