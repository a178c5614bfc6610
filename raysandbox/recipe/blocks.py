"""Blocks of rows on their way through a recipe, and rows that did not make it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raysandbox.ops.batch import FOLDER_COLUMN, SUFFIX_COLUMN
from raysandbox.recipe.remote import compression_of, open_unpacked
from raysandbox.recipe.rows import Row, encode_row, table_of
from raysandbox.recipe.validators import Validator

__all__ = [
    "ROW_COLUMN",
    "BadRow",
    "Block",
    "Needs",
    "Place",
    "bad_line",
    "bad_row",
    "block_of_rows",
    "block_of_table",
    "file_suffix",
    "output_rows",
    "output_table",
]

# Position of a row in its block: operators carry it along when they drop, repeat or reorder rows.
ROW_COLUMN = "__row__"
_PLACE_COLUMNS = (FOLDER_COLUMN, SUFFIX_COLUMN)
_RAW_LIMIT = 2000  # characters of a bad row that are kept


class Place(NamedTuple):
    """Where a row came from; a tuple, since there is one for every row.

    Attributes:
        file: its file, "rows" for rows in memory.
        number: 0-based, counted from `start`.
        start: byte of the unpacked content where counting began. Lines before it are counted only when
            a message needs it.
    """

    file: str
    number: int
    start: int = 0

    @property
    def unit(self) -> str:
        """What `line` counts: "line" or "row"."""
        return "line" if ".jsonl" in self.file else "row"

    def line(self) -> int:
        """1-based number of the line or row in the file."""
        return self.number + 1 + (_lines_before(self.file, self.start) if self.start else 0)


@lru_cache(maxsize=8)
def _lines_before(file: str, end: int) -> int:
    count, left = 0, end
    with open_unpacked(file, compression_of(file)) as stream:
        while left > 0 and (data := stream.read(min(left, 1 << 24))):
            count += data.count(b"\n")
            left -= len(data)
    return count


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read or processed."""

    place: Place
    reason: str
    raw: str
    operator: str | None = None

    def __str__(self) -> str:
        by = f"{self.operator}: " if self.operator else ""
        return f"{self.place.file}:{self.place.line()}: {by}{self.reason}"

    def record(self) -> dict[str, Any]:
        """What quarantine keeps of it."""
        operator = {"operator": self.operator} if self.operator else {}
        position = {self.place.unit: self.place.line()}
        return {"file": self.place.file, **position, **operator, "reason": self.reason, "raw": self.raw}


def bad_line(place: Place, reason: str, line: bytes) -> BadRow:
    """A line that is no row."""
    return BadRow(place, reason, line[: 4 * _RAW_LIMIT].decode("utf-8", "replace")[:_RAW_LIMIT])


def bad_row(place: Place, reason: str, row: Mapping[str, Any], operator: str | None = None) -> BadRow:
    """A row that is not what an operator needs."""
    return BadRow(place, reason, encode_row(row).decode("utf-8", "replace")[:_RAW_LIMIT], operator)


@dataclass(frozen=True)
class Needs:
    """What operators need of every row.

    Attributes:
        texts: columns that must hold a string in every row.
        columns: columns that must be there, null where a row has no value, and their types.
        media: columns of paths; relative ones start at the data's folder, as in Data-Juicer.
        suffix: whether rows must say the suffix of their file, in `SUFFIX_COLUMN`.
        folder: whether rows must say where relative paths in them start, in `FOLDER_COLUMN`.
        checks: what else every row must hold, looked at when it is read.
    """

    texts: tuple[str, ...] = ()
    columns: Mapping[str, pa.DataType] = field(default_factory=dict)
    media: tuple[str, ...] = ("images", "videos", "audios")
    suffix: bool = False
    folder: bool = False
    checks: tuple[Validator, ...] = ()


@dataclass(frozen=True)
class Block:
    """Rows as operators see them, and as they were read.

    Attributes:
        table: the columns, with `ROW_COLUMN`.
        places: where each row came from.
        rows: the original objects, None where the columns are the original.
        added: columns that operators need and the data does not have.
        bad: rows that were read beside these and are not good.
        missing: number of rows that lack a value of a column, where a validator tolerates some.
    """

    table: pa.Table
    places: Sequence[Place]
    rows: Sequence[Row] | None
    added: frozenset[str] = frozenset()
    bad: Sequence[BadRow] = ()
    missing: Mapping[str, int] = field(default_factory=dict)


def block_of_rows(
    rows: Sequence[Row], places: Sequence[Place], needs: Needs, folder: str = "", bad: Sequence[BadRow] = ()
) -> Block:
    """A block of JSON-like rows; those without the texts that are needed go to `bad`."""
    faulty, missing = list(bad), Counter[str]()
    good_rows, good_places = [], []
    for row, place in zip(rows, places, strict=True):
        reason = _text_fault(row, needs.texts) or _check(row, needs.checks, missing)
        if reason is None:
            good_rows.append(_with_absolute_media(row, needs.media, folder))
            good_places.append(place)
        else:
            faulty.append(bad_row(place, reason, row))
    table = table_of(good_rows) if good_rows else pa.table({})
    table, added = _with_columns(table, good_places, needs, folder)
    return Block(table, good_places, good_rows, added, faulty, missing)


def _check(row: Row, checks: Sequence[Validator], missing: Counter[str]) -> str | None:
    """What validators say of a row; what it lacks and may lack is counted."""
    for check in checks:
        fault = check.fault(row)
        if fault is not None:
            return fault
        missing.update(check.missing(row))
    return None


def _text_fault(row: Row, texts: Sequence[str]) -> str | None:
    for name in texts:
        value = row.get(name)
        if not isinstance(value, str):
            if value is None:
                return f"'{name}' is null" if name in row else f"no '{name}'"
            return f"'{name}' is not a string"
    return None


def block_of_table(table: pa.Table, places: Sequence[Place], needs: Needs, folder: str = "") -> Block:
    """A block of typed rows; those without the texts that are needed go to `bad`."""
    keep = np.ones(table.num_rows, dtype=bool)
    bad: list[BadRow] = []
    for name in needs.texts:
        fault = _column_faults(table, name)
        for index in np.flatnonzero(keep & (fault != "")).tolist():
            row = {key: value for key, value in table.slice(index, 1).to_pylist()[0].items() if key != name}
            bad.append(bad_row(places[index], str(fault[index]), row))
        keep &= fault == ""
    missing = Counter[str]()
    if needs.checks:
        for index, row in enumerate(_checked_columns(table, needs.checks).to_pylist()):
            reason = _check(row, needs.checks, missing) if keep[index] else None
            if reason is not None:
                bad.append(bad_row(places[index], reason, row))
                keep[index] = False
    if not keep.all():
        table = table.filter(pa.array(keep))
        places = [place for place, kept in zip(places, keep.tolist(), strict=True) if kept]
    for name in set(needs.media) & set(table.column_names):
        column = table.column(name)
        values = [_absolute(value, folder) for value in column.to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(values, column.type))
    table, added = _with_columns(table, places, needs, folder)
    return Block(table, places, None, added, bad, missing)


def _checked_columns(table: pa.Table, checks: Sequence[Validator]) -> pa.Table:
    names = dict.fromkeys(name for check in checks for name in check.columns)
    rows = pa.table({ROW_COLUMN: pa.nulls(table.num_rows)})  # counts the rows, whatever columns there are
    for name in names:
        if name in table.column_names:
            rows = rows.append_column(name, table.column(name))
    return rows


def _column_faults(table: pa.Table, name: str) -> np.ndarray:
    """What is wrong with each value of a text column, "" where nothing is."""
    if name not in table.column_names:
        return np.full(table.num_rows, f"no '{name}'", dtype=object)
    column = table.column(name)
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        reason = f"'{name}' is null" if pa.types.is_null(column.type) else f"'{name}' is not a string"
        return np.full(table.num_rows, reason, dtype=object)
    faults = np.full(table.num_rows, "", dtype=object)
    faults[column.is_null().to_numpy()] = f"'{name}' is null"
    return faults


def _with_absolute_media(row: Row, media: Sequence[str], folder: str) -> Row:
    found = [name for name in media if row.get(name)]
    return {**row, **{name: _absolute(row[name], folder) for name in found}} if found and folder else row


def _absolute(value: Any, folder: str) -> Any:
    if isinstance(value, str):
        return value if not value or os.path.isabs(value) or "://" in value else os.path.join(folder, value)
    return [_absolute(item, folder) for item in value] if isinstance(value, list) else value


def _with_columns(
    table: pa.Table, places: Sequence[Place], needs: Needs, folder: str
) -> tuple[pa.Table, frozenset[str]]:
    num_rows = len(places)
    index = pa.array(np.arange(num_rows, dtype=np.int32))
    table = table.append_column(ROW_COLUMN, index) if table.num_columns else pa.table({ROW_COLUMN: index})
    added = frozenset(needs.columns) - frozenset(table.column_names)
    for name in sorted(added):
        table = table.append_column(name, pa.nulls(num_rows, needs.columns[name]))
    if needs.folder:
        table = table.append_column(FOLDER_COLUMN, pa.array([folder] * num_rows, pa.large_string()))
        added |= {FOLDER_COLUMN}
    if needs.suffix and SUFFIX_COLUMN not in table.column_names:
        suffixes = [file_suffix(place.file) for place in places]
        return table.append_column(SUFFIX_COLUMN, pa.array(suffixes, pa.large_string())), added | {SUFFIX_COLUMN}
    return table, added


@lru_cache(maxsize=256)
def file_suffix(path: str) -> str:
    """The suffix of a file as `suffix_filter` compares it: ".jsonl", ".jsonl.zst"."""
    stem, suffix = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] + suffix if compression_of(path) else suffix


def output_rows(block: Block, table: pa.Table) -> list[Row]:
    """The rows that operators left, with what they changed and everything else as it was read.

    Args:
        block: what was read.
        table: what operators made of it; rows are matched by `ROW_COLUMN`.
    """
    if block.rows is None or ROW_COLUMN not in table.column_names:
        return output_table(block, table).to_pylist()
    index = table.column(ROW_COLUMN).combine_chunks()
    moved = not index.equals(block.table.column(ROW_COLUMN).combine_chunks())
    rows = [dict(block.rows[position]) for position in index.to_pylist()]
    for name in table.column_names:
        if name == ROW_COLUMN:
            continue
        new = table.column(name)
        if name not in block.table.column_names:
            for row, value in zip(rows, new.to_pylist(), strict=True):
                row[name] = value
            continue
        old = block.table.column(name)
        old = old.take(index) if moved else old
        if not new.equals(old):
            _assign_changes(rows, name, old.to_pylist(), new.to_pylist())
    for name in set(block.table.column_names) - set(table.column_names):
        for row in rows:
            row.pop(name, None)
    return rows


def _assign_changes(rows: Sequence[Row], name: str, old: Sequence[Any], new: Sequence[Any]) -> None:
    """Sets the values that operators changed; the others keep what Arrow's one type may have lost."""
    for row, before, value in zip(rows, old, new, strict=True):
        if value != before:
            row[name] = value


def output_table(block: Block, table: pa.Table) -> pa.Table:
    """The columns that operators left of typed rows, less those that were added for them and not used."""
    unused = [
        name
        for name in table.column_names
        if name == ROW_COLUMN
        or (name in block.added and (name in _PLACE_COLUMNS or table.column(name).null_count == table.num_rows))
    ]
    return table.drop_columns(unused)
