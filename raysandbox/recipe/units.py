"""The unit of work of both engines: read one task, apply a segment, leave its rows in a part.

A unit runs in this process or in a worker, has no memory of other units, and writes only its own
files in the staging folder, so that it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from raysandbox.ops.base import Deduplicator
from raysandbox.ops.batch import META_COLUMN
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
from raysandbox.recipe.fused import FusedOps, Outcome, Tally
from raysandbox.recipe.inputs import ReadTask
from raysandbox.recipe.readers import read_task
from raysandbox.recipe.rows import Row, decode_row, encode_row, table_of

__all__ = ["InMemory", "Staged", "StatSum", "Unit", "UnitReport", "Work"]

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
    """A piece of work, numbered in input order."""

    index: int
    source: ReadTask | InMemory | Staged


@dataclass
class StatSum:
    """Count, sum and range of a statistic over the rows that were kept."""

    count: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

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
        size: bytes in its parts.
        rows: its rows, when they stay in memory.
        columns: small columns that stay in memory (statistics of an analysis).
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
    size: int = 0
    rows: list[Row] = field(default_factory=list)
    columns: list[pa.Table] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """What all units of a pass have in common; sent to each worker once.

    Attributes:
        fused: the operators.
        needs: what they need of every row.
        staging: folder for parts.
        sink: what becomes of the rows: "lines" of JSON, Arrow "tables", "staged" for the next
            segment, "memory", or "nothing".
        keep_stats: write the statistics column.
        keep_hashes: write the columns that deduplicators compare.
        gather_stats: report the statistics of every row.
        limit: bad rows after which a unit need not go on; None for no limit.
    """

    fused: FusedOps
    needs: Needs
    staging: Path
    sink: Literal["lines", "tables", "staged", "memory", "nothing"]
    keep_stats: bool = False
    keep_hashes: bool = False
    gather_stats: bool = False
    limit: int | None = None

    def run(self, unit: Unit) -> UnitReport:
        """Does one unit."""
        report = UnitReport(unit.index, self.fused.tallies(), [[] for _ in self.fused.deciders])
        with _Sink(self, report) as sink:
            for block in self._blocks(unit.source):
                report.rows_in += len(block.places) + len(block.bad)
                left = None if self.limit is None else self.limit - report.bad
                outcome = self.fused.run(block, report.tallies, left)
                sink.quarantine([*block.bad, *outcome.bad])
                if self.limit is not None and report.bad > self.limit:
                    break
                if outcome.batch.num_rows:
                    self._report(report, outcome)
                    sink.write(block, self._result(outcome))
        return report

    def _blocks(self, source: ReadTask | InMemory | Staged) -> Iterator[Block]:
        if isinstance(source, ReadTask):
            yield from read_task(source, self.needs)
        elif isinstance(source, Staged):
            yield from _staged_blocks(source, self.needs)
        else:
            places = [Place("rows", number) for number in range(len(source.rows))]
            yield block_of_rows(source.rows, places, self.needs)

    def _report(self, report: UnitReport, outcome: Outcome) -> None:
        report.rows_out += outcome.batch.num_rows
        for tables, table in zip(report.features, outcome.features, strict=True):
            tables.append(table)
        for name, values in outcome.batch.stats.items():
            if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
                report.stats.setdefault(name, StatSum()).add(_stat_sum(values))
        if self.gather_stats:
            report.columns.append(pa.table(dict(outcome.batch.stats)))

    def _result(self, outcome: Outcome) -> pa.Table:
        """The columns to write."""
        with_stats = self.keep_stats or self.sink == "staged"
        table = outcome.batch.to_table(with_stats=with_stats)
        if not with_stats and META_COLUMN in table.column_names:
            table = table.drop_columns([META_COLUMN])
        if self.keep_hashes:
            for op, features in zip(self.fused.deciders, outcome.features, strict=True):
                for name in features.column_names if isinstance(op, Deduplicator) else ():
                    table = table.append_column(name, _readable(features.column(name)))
        return table


def _readable(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Hashes as JSON can hold them: bytes in hexadecimal."""
    if pa.types.is_fixed_size_binary(column.type) or pa.types.is_binary(column.type):
        return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.large_string())
    return column


def _stat_sum(values: pa.Array) -> StatSum:
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return StatSum()
    return StatSum(len(numbers), float(numbers.sum()), float(numbers.min()), float(numbers.max()))


class _Sink:
    """Where a unit's rows and bad rows go; files are opened when the first row comes."""

    def __init__(self, work: Work, report: UnitReport) -> None:
        self._work = work
        self._report = report
        self._lines: Any = None
        self._bad: Any = None

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in (self._lines, self._bad):
            if stream is not None:
                stream.close()

    def quarantine(self, bad: Sequence[BadRow]) -> None:
        if not bad:
            return
        if self._bad is None:
            self._report.quarantine = self._path("bad.jsonl")
            self._bad = self._report.quarantine.open("wb")
        for row in bad:
            self._bad.write(encode_row(row.record()) + b"\n")
        self._report.bad += len(bad)
        self._report.first_bad += [str(row) for row in bad[: SHOWN_BAD_ROWS - len(self._report.first_bad)]]

    def write(self, block: Block, table: pa.Table) -> None:
        sink = self._work.sink
        if sink == "lines":
            self._write_lines(output_rows(block, table))
        elif sink == "memory":
            self._report.rows += output_rows(block, table)
        elif sink == "tables":
            self._write_table(output_table(block, table) if block.rows is None else table_of(output_rows(block, table)))
        elif sink == "staged":
            self._write_table(_stage(block, table))

    def _write_lines(self, rows: Sequence[Row]) -> None:
        if self._lines is None:
            self._report.parts.append(self._path("part.jsonl"))
            self._lines = self._report.parts[0].open("wb")
        lines = [encode_row(row) for row in rows]
        lines.append(b"")
        self._report.size += self._lines.write(b"\n".join(lines))

    def _write_table(self, table: pa.Table) -> None:
        part = self._path(f"part-{len(self._report.parts):05d}.arrow")
        with ipc.new_file(str(part), table.schema) as writer:
            writer.write_table(table)
        self._report.parts.append(part)
        self._report.size += table.nbytes

    def _path(self, name: str) -> Path:
        return self._work.staging / f"{self._report.index:06d}-{name}"


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


def _staged_blocks(source: Staged, needs: Needs) -> Iterator[Block]:
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
            rows = [decode_row(line, long_numbers=True) for line in table.column(_JSON).to_pylist()]
            yield block_of_rows(rows, places, needs)
        else:
            yield block_of_table(table, places, needs)
