"""Parts: the files in which units leave their rows, and what they report about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from raysandbox.core.keys import FileStamps
from raysandbox.ops.arrays import numpy_of
from raysandbox.ops.base import OpResources
from raysandbox.recipe.blocks import (
    ROW_COLUMN,
    BadRow,
    Block,
    Needs,
    Place,
    block_of_rows,
    block_of_table,
    output_rows,
    output_table,
)
from raysandbox.recipe.fused import Tally
from raysandbox.recipe.inputs import ReadTask
from raysandbox.recipe.row_digests import RowDigests
from raysandbox.recipe.rows import Row, decode_row, encode_row, exact_table, has_long_number
from raysandbox.recipe.sizes import content_size

__all__ = [
    "SHOWN_BAD_ROWS",
    "InMemory",
    "PartWriter",
    "Sink",
    "Staged",
    "StatSum",
    "Unit",
    "UnitReport",
    "UnitWork",
    "rows_at",
    "staged_blocks",
]

# What becomes of a unit's rows: lines of JSON, Arrow tables, parts for the next segment.
Sink = Literal["lines", "tables", "staged", "memory", "nothing"]

SHOWN_BAD_ROWS = 5
_JSON, _FILE, _NUMBER, _START = "__json__", "__file__", "__number__", "__start__"


@dataclass(frozen=True)
class InMemory:
    """Rows that the caller holds."""

    rows: Sequence[Row]
    size: int = 0


@dataclass(frozen=True)
class Staged:
    """Rows that an earlier segment left: one Arrow file per block.

    Attributes:
        parts: the files.
        keep: which of their rows the dataset operators kept (bool, one per row).
        size: bytes of the input that they were made of, for progress.
    """

    parts: tuple[Path, ...]
    keep: np.ndarray
    size: int = 0


@dataclass(frozen=True)
class Unit:
    """A piece of work, numbered in input order.

    Attributes:
        index: its number.
        source: its rows.
        digest: names the content of its rows, "" when it is not known.
        stamps: of the local files that it was made of.
    """

    index: int
    source: ReadTask | InMemory | Staged
    digest: str = ""
    stamps: FileStamps = field(default_factory=FileStamps)


@dataclass
class StatSum:
    """Count, sum and range of a statistic over the rows that were kept."""

    count: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    @classmethod
    def of(cls, values: pa.Array) -> StatSum:
        """The summary of an array's finite numbers."""
        numbers = numpy_of(values).astype(np.float64)
        numbers = numbers[np.isfinite(numbers)]
        if not len(numbers):
            return cls()
        return cls(len(numbers), float(numbers.sum()), float(numbers.min()), float(numbers.max()))

    def add(self, other: StatSum) -> None:
        """Adds what was summed elsewhere."""
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)


@dataclass
class UnitReport:
    """What a unit did.

    Attributes:
        rows_in: rows read, bad ones included.
        rows_out: rows in its parts.
        bad: number of bad rows; they stand in `quarantine`.
        first_bad: the first of them, for a message.
        tallies: one per operator.
        features: per dataset operator the columns of all rows, in order.
        stats: summaries of the statistics of the rows that are left.
        parts: files with its rows.
        schemas: columns and types of each part, where the output needs them.
        size: bytes of content in its parts, the same however rows were cut into blocks.
        rows: its rows, when they stay in memory.
        columns: small columns that stay in memory (statistics of an analysis).
        missing: rows that lack a value of a column, where a validator tolerates some.
        recalled: values that were taken from the statistics store.
        damaged: entries of the store that were found damaged.
        samples: per operator what the tracer shows of its rows.
        lines: digests of the lines in its parts, where they are made.
        scored: scores that are not kept yet, with digests of what they were made from.
        unnamed: rows whose scores cannot be kept.
        unknown: whether scores are missing that were only to be looked up.
    """

    index: int
    tallies: list[Tally]
    features: list[list[pa.Table]]
    rows_in: int = 0
    rows_out: int = 0
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)
    quarantine: Path | None = None
    stats: dict[str, StatSum] = field(default_factory=dict)
    parts: list[Path] = field(default_factory=list)
    schemas: list[pa.Schema] = field(default_factory=list)
    size: int = 0
    rows: list[Row] = field(default_factory=list)
    columns: list[pa.Table] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    recalled: int = 0
    damaged: int = 0
    samples: list[list[Row]] = field(default_factory=list)
    lines: list[RowDigests] = field(default_factory=list)
    scored: list[tuple[np.ndarray, pa.Table]] = field(default_factory=list)
    unnamed: int = 0
    unknown: bool = False

    def summarise(self, stats: Mapping[str, pa.Array]) -> None:
        """Adds numbers of some rows to `stats`."""
        for name, column in stats.items():
            values = column.flatten() if pa.types.is_list(column.type) else column
            if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
                self.stats.setdefault(name, StatSum()).add(StatSum.of(values))

    def select(self, keep: np.ndarray) -> None:
        """Drops the rows where `keep` does not hold, from lines or memory; `columns` must hold their statistics."""
        if self.stats:
            table = pa.concat_tables(self.columns, promote_options="permissive").filter(pa.array(keep))
            self.columns, self.stats = [table], {}
            self.summarise({name: table.column(name).combine_chunks() for name in table.column_names})
        self.rows_out = int(keep.sum())
        self.rows = list(compress(self.rows, keep.tolist()))
        self.lines = [RowDigests.joined(self.lines).select(keep)] if self.lines else []
        for part in self.parts:  # lines stand in one part
            self.size = _select_lines(part, keep)


class UnitWork(Protocol):
    """What is done with each unit: a dataclass, pickled to where units run.

    Attributes:
        staging: folder where units leave their files.
    """

    @property
    def staging(self) -> Path:
        """Folder where units leave their files."""
        ...

    @property
    def resources(self) -> tuple[OpResources, ...]:
        """What those of its operators ask that need workers of their own; empty when any worker will do."""
        ...

    def run(self, unit: Unit) -> UnitReport:
        """Does one unit."""
        ...


def rows_at(reports: Sequence[UnitReport], wanted: Collection[int]) -> dict[int, Row]:
    """Some rows of the units' parts or memory, by their number over all units."""
    found: dict[int, Row] = {}
    start = 0
    for report in reports:
        places = {index: index - start for index in wanted if start <= index < start + report.rows_out}
        start += report.rows_out
        if places:
            rows = report.rows or [row for part in report.parts for row in _rows_of(part)]
            found |= {index: rows[place] for index, place in places.items()}
    return found


def _rows_of(part: Path) -> Iterator[Row]:
    """The rows of a part as plain objects."""
    if part.suffix == ".arrow":
        every = Staged((part,), np.ones(ipc.open_file(part.read_bytes()).read_all().num_rows, dtype=bool))
        for block in staged_blocks(every, Needs()):
            yield from output_rows(block, block.table)
        return
    with part.open("rb") as lines:
        yield from (decode_row(line, long_numbers=has_long_number(line)) for line in lines)


def _select_lines(part: Path, keep: np.ndarray) -> int:
    """Drops lines of a file; returns its size."""
    kept = part.with_suffix(".kept")
    with part.open("rb") as lines, kept.open("wb") as output:
        output.writelines(compress(lines, keep.tolist()))
        size = output.tell()
    kept.replace(part)
    return size


class PartWriter:
    """Where a unit's rows and bad rows go; files are opened when the first row comes.

    Args:
        staging: folder of the files.
        sink: what becomes of the rows.
        report: is told of them.
        digests: whether it is told the digests of lines too.
    """

    def __init__(self, staging: Path, sink: Sink, report: UnitReport, *, digests: bool = False) -> None:
        self._staging = staging
        self._digests = digests
        self._sink = sink
        self._report = report
        self._stream: Any = None
        self._bad: Any = None

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in (self._stream, self._bad):
            if stream is not None:
                stream.close()

    def quarantine(self, bad: Sequence[BadRow]) -> None:
        """Sets bad rows aside."""
        if not bad:
            return
        if self._bad is None:
            self._report.quarantine = self._path("bad.jsonl")
            self._bad = self._report.quarantine.open("wb")
        for row in bad:
            self._bad.write(encode_row(row.record()) + b"\n")
        self._report.bad += len(bad)
        self._report.first_bad += [str(row) for row in bad[: SHOWN_BAD_ROWS - len(self._report.first_bad)]]

    def write(self, block: Block, table: pa.Table) -> list[bytes] | None:
        """Writes what operators made of a block; returns the lines, if that is what it writes."""
        if self._sink == "lines":
            lines = _lines(output_rows(block, table))
            self.write_bytes(b"".join(lines), RowDigests.of_lines(lines) if self._digests else None)
            return lines
        if self._sink == "memory":
            self._report.rows += output_rows(block, table)
        elif self._sink == "tables":
            self._write_typed(block, table)
        elif self._sink == "staged":
            self._write_table(_stage(block, table))
        return None

    def write_some(self, block: Block, table: pa.Table, keep: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """Writes the lines of the rows where `keep` holds; returns those of all rows, and their digests."""
        lines = _lines(output_rows(block, table))
        digests = RowDigests.of_lines(lines)
        self.write_bytes(b"".join(compress(lines, keep.tolist())), digests.select(keep))
        return lines, digests.digests

    def write_bytes(self, lines: bytes | memoryview, digests: RowDigests | None = None) -> None:
        """Writes encoded rows."""
        if not len(lines):
            return
        if digests is not None:
            self._report.lines.append(digests)
        if self._stream is None:
            self._stream = self._new_part("jsonl").open("wb")
        self._report.size += self._stream.write(lines)

    def _write_typed(self, block: Block, table: pa.Table) -> None:
        """Tables with the types of the block; only all blocks together tell the types of the output."""
        if block.rows is None:
            typed = output_table(block, table)
            schema, size = typed.schema, content_size(typed)
        else:
            rows = output_rows(block, table)
            typed, schema = exact_table(rows)
            size = sum(map(len, _lines(rows)))
        self._write_table(typed)
        self._report.schemas.append(schema)
        self._report.size += size

    def _write_table(self, table: pa.Table) -> None:
        part = self._new_part("arrow")
        with ipc.new_file(str(part), table.schema) as writer:
            writer.write_table(table)

    def _new_part(self, suffix: str) -> Path:
        self._report.parts.append(self._path(f"part-{len(self._report.parts):05d}.{suffix}"))
        return self._report.parts[-1]

    def _path(self, name: str) -> Path:
        return self._staging / f"{self._report.index:06d}-{name}"


def _lines(rows: Sequence[Row]) -> list[bytes]:
    return [encode_row(row) + b"\n" for row in rows]


def _stage(block: Block, table: pa.Table) -> pa.Table:
    """Rows for the next segment, with where they came from."""
    places = [block.places[index] for index in _positions(table)]
    origin = {
        _FILE: pa.array([place.file for place in places], pa.string()).dictionary_encode(),
        _NUMBER: pa.array([place.number for place in places], pa.int64()),
        _START: pa.array([place.start for place in places], pa.int64()),
    }
    if block.rows is None:
        plain = output_table(block, table)
        for name, values in origin.items():
            plain = plain.append_column(name, values)
        return plain
    lines = [encode_row(row) for row in output_rows(block, table)]
    return pa.table({_JSON: pa.array(lines, pa.large_binary()), **origin})


def _positions(table: pa.Table) -> list[int]:
    if ROW_COLUMN in table.column_names:
        return table.column(ROW_COLUMN).to_pylist()
    return [0] * table.num_rows  # a mapper made rows of its own


def staged_blocks(source: Staged, needs: Needs) -> Iterator[Block]:
    """Reads the rows that an earlier segment left and dataset operators kept."""
    start = 0
    for part in source.parts:
        with pa.memory_map(str(part)) as stream, ipc.open_file(stream) as reader:
            staged = reader.read_all()
        table = staged.filter(pa.array(source.keep[start : start + staged.num_rows]))
        start += staged.num_rows
        origin = (table.column(name).to_pylist() for name in (_FILE, _NUMBER, _START))
        places = [Place(*values) for values in zip(*origin, strict=True)]
        table = table.drop_columns([_FILE, _NUMBER, _START])
        if table.column_names == [_JSON]:
            rows = [decode_row(line, long_numbers=has_long_number(line)) for line in table.column(_JSON).to_pylist()]
            yield block_of_rows(rows, places, needs)
        else:
            yield block_of_table(table, places, needs)
