"""What is known of a unit from earlier runs: statistics per row, and the rows as they were written.

A filter computes its statistics only for the rows that the store does not know. When everything
is known, a unit is replayed: the thresholds decide over stored numbers, and the lines that remain
are written, with nothing read, mapped or computed again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from raysandbox.core.keys import DigestMemo, digest
from raysandbox.ops.arrays import arrow_of, numpy_of
from raysandbox.ops.base import Filter, Mapper, Operator
from raysandbox.ops.batch import STATS_COLUMN, Batch, FieldKeys, RowFaults
from raysandbox.recipe.blocks import ROW_COLUMN, Block
from raysandbox.recipe.identity import operator_identity
from raysandbox.recipe.row_digests import RowDigests
from raysandbox.recipe.store import StatisticsStore, UnitFolder

__all__ = ["Recall", "RecallKeys", "Replay", "numbered", "recall_keys"]

_ROW, _STAMP, _LINE, _HIGH, _LOW = "__row__", "__stamp__", "__line__", "__high__", "__low__"
_ROWS_READ = b"rows_read"


@dataclass(frozen=True)
class RecallKeys:
    """Names of what a segment computes.

    Attributes:
        store: where it is kept.
        operators: one key per operator; None for mappers.
        media: per operator the columns of media files that it or a mapper before it reads.
        rows: key of the numbers of the rows that the segment left in some run.
        lines: key of these rows as they are written.
    """

    store: StatisticsStore
    operators: tuple[str | None, ...]
    media: tuple[tuple[str, ...], ...]
    rows: str
    lines: str

    def open(self, unit: str) -> Recall:
        """What is known of the unit whose content has this digest."""
        return Recall(self, self.store.unit(unit))


def recall_keys(
    store: StatisticsStore,
    operators: Sequence[Operator],
    keys: FieldKeys,
    memo: DigestMemo,
    needs: Sequence[str],
    form: Any,
    *,
    with_results: bool,
) -> RecallKeys:
    """Names what a segment computes.

    A statistic depends on its operator without the thresholds and on the mappers before it; that of
    an operator which reads statistics on the filters before it too.

    Args:
        store: where it is kept.
        operators: the operators of the segment, which starts at the input.
        keys: the recipe's column names.
        memo: remembers digests of files.
        needs: columns without which a row is bad; bad rows are not counted.
        form: what else the written rows depend on.
        with_results: whether what operators compute is written with the rows.
    """
    found: list[str | None] = []
    media: list[tuple[str, ...]] = []
    changes: list[Any] = [list(needs)]
    seen: tuple[str, ...] = ()
    for op in operators:
        identity = [operator_identity(op, memo, with_thresholds=False), astuple(op.keys(keys))]
        before = [changes, found] if "stats" in op.reads else changes
        columns = tuple(dict.fromkeys((*seen, *_media_columns(op, keys))))
        media.append(columns)
        found.append(None if isinstance(op, Mapper) else digest([before, identity]))
        if isinstance(op, Mapper):  # one may read the statistics so far: Data-Juicer's do
            changes, seen = [changes, list(found), identity], columns
    # Filters decide which rows are written, not how; these are known of any run with the same mappers.
    # With what they compute the rows depend on the order too: of two of one name the last counts.
    rows = digest([changes, [key for key in found if key] if with_results else [], form])
    return RecallKeys(store, tuple(found), tuple(media), rows, digest([rows, "lines", "digests"]))


def _media_columns(op: Operator, keys: FieldKeys) -> list[str]:
    own = op.keys(keys)
    names = {"image": own.image, "video": own.video, "audio": own.audio}
    frames = getattr(op, "frame_field", None)
    return [names[kind] for kind in op.reads if kind in names] + ([frames] if frames else [])


@dataclass(frozen=True)
class Replay:
    """A unit that needs no work.

    Attributes:
        rows_read: rows of the input.
        rows: numbers of the rows that remain.
        counts: rows in and out of every operator.
        stats: the statistics of the rows that remain.
        features: what the operators compare that decide over all rows; none without rows.
        values: number of values that were taken from the store.
        media: whether it holds only if the media files that the rows name are still the same.
    """

    rows_read: int
    rows: np.ndarray
    counts: tuple[tuple[int, int], ...]
    stats: Mapping[str, pa.Array]
    features: tuple[pa.Table, ...]
    values: int
    media: bool


@dataclass
class _Entry:
    """Values by row: as stored, and as they were added since."""

    stored: pa.Table | None
    added: list[pa.Table] = field(default_factory=list)

    def find(self, rows: np.ndarray) -> np.ndarray:
        """Position of each row in `stored`, -1 where it is unknown."""
        if self.stored is None or not self.stored.num_rows:
            return np.full(len(rows), -1)
        known = numpy_of(self.stored.column(_ROW))
        positions = np.minimum(np.searchsorted(known, rows), len(known) - 1)
        return np.where(known[positions] == rows, positions, -1)

    def merged(self) -> pa.Table:
        """All values in the order of the rows; what was added replaces what was stored."""
        new = pa.concat_tables(self.added, promote_options="permissive")
        if self.stored is not None:
            outdated = np.isin(self.stored.column(_ROW).to_numpy(), new.column(_ROW).to_numpy())
            new = pa.concat_tables([self.stored.filter(pa.array(~outdated)), new], promote_options="permissive")
        return new.sort_by(_ROW).combine_chunks()


class Recall:
    """The store's knowledge of one unit; `save` adds what was computed.

    Rows are numbered as they are read, over all blocks of the unit.

    Attributes:
        hits: number of values that were taken from the store.
    """

    def __init__(self, keys: RecallKeys, folder: UnitFolder) -> None:
        self._keys = keys
        self._folder = folder
        self._entries: dict[str, _Entry] = {}
        self._before = 0  # rows of earlier blocks
        self._complete = True  # whether every row that is left can be named by its number
        self.hits = 0

    @property
    def damaged(self) -> int:
        """Number of entries that were found damaged and are computed again."""
        return self._folder.damaged

    def compute(
        self, index: int, op: Operator, batch: Batch, make: Callable[[Batch], Mapping[str, pa.Array]]
    ) -> Mapping[str, pa.Array]:
        """The columns that the segment's operator `index` computes, taken from the store where it has them.

        Args:
            index: position of the operator in the segment.
            op: the operator.
            batch: the rows; numbered by `ROW_COLUMN`.
            make: computes the columns.
        """
        key = self._keys.operators[index]
        if key is None or not numbered(batch.table):
            return make(batch)
        entry = self._entry(key)
        rows = self._rows(batch.table)
        stamps = _stamps(self._keys.media[index], batch.table)
        positions = entry.find(rows)
        if stamps is not None and entry.stored is not None:
            same = entry.stored.column(_STAMP).to_numpy()[positions] == stamps
            positions = np.where(same, positions, -1)
        missing = positions < 0
        if missing.all():
            return self._add(entry, rows, stamps, make(batch))
        assert entry.stored is not None
        known = _values(entry.stored).take(pa.array(positions[~missing]))
        self.hits += known.num_rows
        if not missing.any():
            return _columns(known)
        kept_stamps = None if stamps is None else stamps[missing]
        try:
            made = make(batch.select(missing))
        except RowFaults as faults:
            places = np.flatnonzero(missing)
            raise RowFaults({int(places[row]): reason for row, reason in faults.faults.items()}) from faults
        fresh = self._add(entry, rows[missing], kept_stamps, made)
        both = pa.concat_tables([known, pa.table(dict(fresh))], promote_options="permissive")
        order = np.empty(len(rows), np.int64)
        order[np.concatenate((np.flatnonzero(~missing), np.flatnonzero(missing)))] = np.arange(len(rows))
        return _columns(both.take(pa.array(order)))

    def give_up_rows(self) -> None:
        """The unit does not come to its end, or rows have lost their numbers: its rows are not known."""
        self._complete = False

    def end_block(
        self, block: Block, result: pa.Table, lines: Sequence[bytes] | None, digests: np.ndarray, *, whole: bool
    ) -> None:
        """Remembers the rows that a block leaves, as they are written.

        Args:
            block: what was read.
            result: the rows that are left, numbered by `ROW_COLUMN`.
            lines: what is written of each, None where nothing is.
            digests: of the lines, uint64 of shape (lines, 2).
            whole: whether the rows so far can be replayed; bad ones can not.
        """
        # A statistic that the input brings along is no operator's, and would be missed.
        self._complete &= whole and numbered(result) and STATS_COLUMN not in block.table.column_names
        if self._complete:
            rows = pa.array(self._rows(result))
            self._entry(self._keys.rows).added.append(pa.table({_ROW: rows}))
            if lines is not None or not result.num_rows:
                named = {_HIGH: pa.array(digests[:, 0]), _LOW: pa.array(digests[:, 1])}
                table = pa.table({_ROW: rows, _LINE: pa.array(lines or [], pa.large_binary()), **named})
                self._entry(self._keys.lines).added.append(table)
        self._before += len(block.places)

    def save(self) -> None:
        """Writes what was computed; rows only when every one of the unit is accounted for."""
        for key in (self._keys.rows, self._keys.lines):
            if key in self._entries and not self._complete:
                self._entries[key].added.clear()
        rows = self._entries.get(self._keys.rows)
        if rows is not None and rows.added:
            rows.added[0] = rows.added[0].replace_schema_metadata({_ROWS_READ: str(self._before)})
        for key, entry in self._entries.items():
            if entry.added:
                self._folder.write(key, entry.merged())

    def replay(self, operators: Sequence[Operator], *, lines: bool, keep_all: bool) -> Replay | None:
        """The unit's result when the store knows all of it, else None.

        Args:
            operators: those of the segment.
            lines: whether the rows' lines are needed too.
            keep_all: whether filters drop nothing.
        """
        rows = self._entry(self._keys.rows).stored
        if rows is None or (lines and not self._folder.has(self._keys.lines)):
            return None
        alive = np.arange(_rows_read(rows))
        rows_read, counts, values = len(alive), [], 0
        stats: dict[str, pa.Array] = {}
        features: list[pa.Table] = []
        for op, key in zip(operators, self._keys.operators, strict=True):
            before = len(alive)
            if key is not None and before:
                found = self._known(key, alive)
                if found is None:
                    return None
                values += before
                if isinstance(op, Filter):
                    keep = np.ones(before, dtype=bool) if keep_all else op.keep(found)
                    alive = alive[keep]
                    kept = arrow_of(np.flatnonzero(keep))
                    stats = {name: values.take(kept) for name, values in {**stats, **found}.items()}
                else:
                    features.append(pa.table(dict(found)))
            counts.append((before, len(alive)))
        if (_Entry(rows).find(alive) < 0).any():
            return None
        media = any(self._keys.media)
        return Replay(rows_read, alive, tuple(counts), stats, tuple(features), values, media)

    def missing(self, operators: Sequence[Operator], *, lines: bool, keep_all: bool, replayable: bool) -> set[str]:
        """Keys of what must be computed before the unit's result is known.

        A row of which something is unknown counts as one that all operators after that see. Rows that
        an earlier run could not name, since some were bad, cannot be named by another one either.

        Args:
            operators: those of the segment.
            lines: whether the rows' lines are needed too.
            keep_all: whether filters drop nothing.
            replayable: whether the rows that remain are taken from the store too.
        """
        found: set[str] = set()
        alive: np.ndarray | None = None  # the first operator sees all rows
        for op, key in zip(operators, self._keys.operators, strict=True):
            if key is None:
                continue
            stored = self._entry(key).stored
            if stored is None:
                found.add(key)
                continue
            alive = numpy_of(stored.column(_ROW)) if alive is None else alive
            positions = self._entry(key).find(alive)
            known = positions >= 0
            if not known.all():
                found.add(key)
            if isinstance(op, Filter) and not keep_all and known.any():
                keep = np.ones(len(alive), dtype=bool)
                keep[known] = op.keep(_columns(_values(stored).take(arrow_of(positions[known]))))
                alive = alive[keep]
        rows = self._entry(self._keys.rows)
        if not replayable or (rows.stored is None and not found):
            return found
        unnamed = rows.stored is None or (alive is not None and bool((rows.find(alive) < 0).any()))
        if unnamed or (lines and not self._folder.has(self._keys.lines)):
            found.add(self._keys.rows)
        return found

    @property
    def only_thresholds_moved(self) -> bool:
        """Whether an earlier run did the same with other thresholds, and dropped half of the rows at most."""
        rows = self._entry(self._keys.rows).stored
        keys = [key for key in self._keys.operators if key is not None]
        if rows is None or not keys or not all(map(self._folder.has, keys)):
            return False
        last = self._entry(keys[-1]).stored
        return last is not None and 2 * last.num_rows >= _rows_read(rows)

    def lines(self, rows: np.ndarray) -> tuple[memoryview, RowDigests] | None:
        """Rows as they are written, one after the other, and their digests; None if not all are in the store."""
        entry = self._entry(self._keys.lines)
        positions = entry.find(rows)
        if entry.stored is None or (positions < 0).any():
            return None
        wanted = entry.stored.take(arrow_of(positions))
        content, sizes = _content(wanted.column(_LINE))
        digests = np.stack((numpy_of(wanted.column(_HIGH)), numpy_of(wanted.column(_LOW))), axis=1)
        return content, RowDigests(digests, sizes)

    def _known(self, key: str, rows: np.ndarray) -> Mapping[str, pa.Array] | None:
        stored = self._entry(key).stored
        positions = self._entry(key).find(rows)
        if stored is None or (positions < 0).any():
            return None
        return _columns(_values(stored).take(arrow_of(positions)))

    def _add(
        self, entry: _Entry, rows: np.ndarray, stamps: np.ndarray | None, columns: Mapping[str, pa.Array]
    ) -> Mapping[str, pa.Array]:
        stamped = {} if stamps is None else {_STAMP: pa.array(stamps)}
        entry.added.append(pa.table({_ROW: pa.array(rows), **stamped, **columns}))
        return columns

    def _entry(self, key: str) -> _Entry:
        if key not in self._entries:
            self._entries[key] = _Entry(self._folder.read(key))
        return self._entries[key]

    def _rows(self, table: pa.Table) -> np.ndarray:
        return table.column(ROW_COLUMN).to_numpy().astype(np.int64) + self._before


def numbered(table: pa.Table) -> bool:
    """Whether each row still has a number of its own: mappers may have made, repeated or moved rows."""
    if ROW_COLUMN not in table.column_names:
        return False
    rows = table.column(ROW_COLUMN).to_numpy()
    return bool((rows[1:] > rows[:-1]).all())


def _rows_read(rows: pa.Table) -> int:
    """How many rows a unit has, by its entry of rows."""
    return int((rows.schema.metadata or {}).get(_ROWS_READ, b"0"))


def _content(column: pa.ChunkedArray) -> tuple[memoryview, np.ndarray]:
    """The bytes of all values, one after the other, and how many each has."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1] if len(array) else [0, 0]
    return memoryview(data or b"")[int(bounds[0]) : int(bounds[-1])], np.diff(bounds)


def _values(stored: pa.Table) -> pa.Table:
    return stored.drop_columns([name for name in (_ROW, _STAMP) if name in stored.column_names])


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    table = table.combine_chunks()
    return {
        name: column.chunk(0) if column.num_chunks else pa.array([], column.type)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _stamps(columns: Sequence[str], table: pa.Table) -> np.ndarray | None:
    """For each row a number that changes when one of its media files does; None without media."""
    if not columns:
        return None
    lists = [table.column(name).to_pylist() for name in columns if name in table.column_names]
    rows = zip(*lists, strict=True) if lists else [()] * table.num_rows
    return np.array([_stamp(values) for values in rows], np.int64)


def _stamp(values: Sequence[Any]) -> int:
    seen = repr([(path, _state(path)) for path in _paths(values)])
    return int.from_bytes(hashlib.blake2b(seen.encode(), digest_size=8).digest(), "big", signed=True)


def _paths(values: Any) -> Iterator[str]:
    """The texts in nested lists."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _paths(value)


def _state(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns
