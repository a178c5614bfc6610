"""The score store: what scorers said of rows, shared by all runs.

An index holds the scores of one scorer (with its model and everything else that they depend on) by a
digest of what they were made from. It is a folder of segments, each written once and named with a
checksum as the entries of the statistics store are; many are merged into one. Processes may add at
the same time: at worst a row stands in two segments, with the same scores.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysandbox.core.keys import digest
from raysandbox.ops.arrays import arrow_of, numpy_of
from raysandbox.recipe.store import LIMIT_BYTES, StatisticsStore

__all__ = ["KnownScores", "ScoreIndex", "index_of", "merged_scores"]

logger = logging.getLogger(__name__)

_HIGH, _LOW = "__high__", "__low__"
_MOST_SEGMENTS = 8


@dataclass(frozen=True, eq=False)
class KnownScores:
    """The scores that an index holds, as they were when it was read.

    Attributes:
        digests: of what they were made from; uint64 of shape (rows, 2), sorted by the first number.
        scores: the scorer's columns.
    """

    digests: np.ndarray
    scores: pa.Table

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Position of each digest (uint64 of shape (n, 2)) in `scores`, -1 where it is unknown; int64 of shape (n,)."""
        if not len(self.digests):
            return np.full(len(digests), -1, np.int64)
        high = np.ascontiguousarray(self.digests[:, 0])
        positions = np.minimum(np.searchsorted(high, digests[:, 0]), len(high) - 1).astype(np.int64)
        return np.where((self.digests[positions] == digests).all(axis=1), positions, -1)

    def take(self, positions: np.ndarray) -> pa.Table:
        """The scores at positions."""
        return self.scores.take(arrow_of(positions))


@dataclass(frozen=True)
class ScoreIndex:
    """The scores of one scorer.

    Attributes:
        folder: of all indices.
        name: digest of everything that these scores depend on besides the rows.
    """

    folder: Path
    name: str

    def read(self) -> KnownScores:
        """What is known; damaged segments are removed and count as absent."""
        while True:
            unit = StatisticsStore(self.folder).unit(self.name)
            listed = unit.keys()
            tables = [table for key in listed if (table := unit.read(key)) is not None]
            if len(tables) + unit.damaged == len(listed):
                break  # else another process has merged or pruned segments since they were listed
        if unit.damaged:
            logger.warning("%d damaged segments of the score store: their rows are scored again", unit.damaged)
        if not tables:
            return KnownScores(np.empty((0, 2), np.uint64), pa.table({}))
        return _known(tables)

    def add(self, digests: np.ndarray, scores: pa.Table) -> None:
        """Adds scores.

        Args:
            digests: of what they were made from, uint64 of shape (rows, 2).
            scores: the scorer's columns.
        """
        unit = StatisticsStore(self.folder).unit(self.name)
        unit.write(uuid.uuid4().hex, _segment(digests, scores))
        merged = unit.keys()
        if len(merged) > _MOST_SEGMENTS:
            whole = _known([table for key in merged if (table := unit.read(key)) is not None])
            if unit.write(uuid.uuid4().hex, _segment(whole.digests, whole.scores)):
                for key in merged:  # what another process added since stays
                    unit.remove(key)

    def prune(self, limit: int = LIMIT_BYTES) -> None:
        """Removes of all indices what was not used for the longest time, until the rest takes at most `limit` bytes."""
        StatisticsStore(self.folder).prune(limit)


def index_of(folder: Path, *identity: object) -> ScoreIndex:
    """The index of the scores that depend on `identity`, JSON-like values, besides the rows."""
    return ScoreIndex(folder, digest(list(identity)))


def merged_scores(known: pa.Table, made: pa.Table, missing: np.ndarray) -> pa.Table:
    """The scores of rows in order.

    Args:
        known: of the rows that were known.
        made: of the others.
        missing: which are the others, bool.
    """
    order = np.empty(len(missing), np.int64)
    order[np.concatenate((np.flatnonzero(~missing), np.flatnonzero(missing)))] = np.arange(len(missing))
    return _joined([known, made]).take(arrow_of(order))


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one after the other; a column without values takes the type that it has elsewhere."""
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _segment(digests: np.ndarray, scores: pa.Table) -> pa.Table:
    """Scores by digest: sorted, each row once."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    table = scores.take(arrow_of(order[first].astype(np.int64)))
    for name, values in ((_HIGH, ordered[first, 0]), (_LOW, ordered[first, 1])):
        table = table.append_column(name, pa.array(values))
    return table


def _known(segments: Sequence[pa.Table]) -> KnownScores:
    table = _joined(segments)
    digests = np.stack([numpy_of(table.column(name)) for name in (_HIGH, _LOW)], axis=1)
    scores = table.drop_columns([_HIGH, _LOW])
    if len(segments) > 1:
        order = np.argsort(digests[:, 0], kind="stable")
        digests, scores = digests[order], scores.take(arrow_of(order.astype(np.int64)))
    return KnownScores(digests, scores)
