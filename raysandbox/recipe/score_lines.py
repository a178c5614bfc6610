"""Scores by line: of a file whose lines have digests, only lines that are new are read.

An output has them beside it. Of another file they are made when it is read a second time and nothing is new.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysandbox.core.keys import FileStamps, digest
from raysandbox.core.names import is_remote
from raysandbox.recipe.plan import InputPlan
from raysandbox.recipe.row_digests import RowDigests, digest_lines, read_digests, sidecar_of
from raysandbox.recipe.score_store import KnownScores, ScoreIndex, merged_scores

__all__ = ["ScoredLines", "file_of_lines", "remember_lines", "scored_lines"]

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
    def num_new(self) -> int:
        """How many lines are unknown."""
        return int(self._missing.sum())

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
        now = _digests(self.path, self.index.folder)
        if now is None or not np.array_equal(now.digests, self.rows.digests) or scores.num_rows != len(now):
            return
        self.index.add(self.rows.digests[self._missing], scores.filter(pa.array(self._missing)))


def file_of_lines(plan: InputPlan) -> Path | None:
    """The file that an input consists of: all lines of one local file of JSON lines; None for any other input."""
    spans = (span for task in plan.tasks for span in task.spans)
    if len(plan.files) != 1 or any(span.picked is not None for span in spans):
        return None
    file = plan.files[0]
    if file.format != "jsonl" or file.compression or is_remote(file.path):
        return None
    return Path(file.path)


def scored_lines(path: Path, index: ScoreIndex) -> ScoredLines | None:
    """What is known of a file by its lines; None when their digests are not."""
    rows = _digests(path, index.folder)
    if rows is None or not len(rows):
        return None
    known = index.read()
    return ScoredLines(path, rows, index, known, known.find(rows.digests))


def remember_lines(path: Path, index: ScoreIndex, scores: pa.Table, before: FileStamps) -> None:
    """Keeps the digests of a file's lines, which have none beside it, and the scores of these lines.

    Args:
        path: the file.
        index: scores by line.
        scores: those of its lines.
        before: the file's stamp before it was scored; nothing is kept when it has changed since.
    """
    digest_lines(path, _elsewhere(path, index.folder))
    lines = scored_lines(path, index)
    if lines is not None and not before.changed:
        lines.learn(scores)


def _digests(path: Path, folder: Path) -> RowDigests | None:
    """The digests of a file's lines: beside it, or in the folder of all indices."""
    found = read_digests(path, sidecar_of(path))
    if found is None and (found := read_digests(path, _elsewhere(path, folder))) is not None:
        with suppress(FileNotFoundError):  # pruned just now
            os.utime(_elsewhere(path, folder))
    return found


def _elsewhere(path: Path, folder: Path) -> Path:
    """Where the digests of a user's file are; the score store prunes them with its segments."""
    name = digest(str(path.resolve()))
    return folder / name[:2] / "lines" / f"{name}.parquet"
