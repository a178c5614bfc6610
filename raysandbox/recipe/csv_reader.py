"""CSV and TSV: streamed twice, since the type of a column depends on all of its values.

A column is of numbers when every value is one and would be written the same way again ("007" is a
text), of booleans when every value is true or false, else of texts. An empty field is null in a
column of numbers or booleans and an empty text otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from raysandbox.core.errors import JobFailed
from raysandbox.recipe.blocks import BadRow, Place, bad_line

__all__ = ["read_csv"]

_INTEGER, _NUMBER, _BOOLEAN = (
    r"^-?(0|[1-9][0-9]{0,17})$",
    r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$",
    r"^([Tt]rue|[Ff]alse)$",
)
_PATTERNS = {_INTEGER: pa.int64(), _NUMBER: pa.float64(), _BOOLEAN: pa.bool_()}
_LARGEST_BLOCK = 1 << 30


@dataclass
class _Reading:
    """One pass over a file: batches of byte columns, and rows with too few or too many fields."""

    open: Callable[[], AbstractContextManager[IO[bytes]]]
    delimiter: str
    path: str
    block_size: int
    bad: list[BadRow] = field(default_factory=list)

    def batches(self) -> Iterator[pa.RecordBatch]:
        parse = csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=self._skip)
        read = csv.ReadOptions(use_threads=False, block_size=self.block_size)
        try:
            with self.open() as stream:
                names = csv.open_csv(stream, read, parse).schema.names
            types = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False)
            self.bad.clear()  # the look at the header met the first block's bad rows too
            with self.open() as stream:
                yield from csv.open_csv(stream, read, parse, types)
        except pa.ArrowInvalid as error:
            if "straddling" in str(error):
                raise
            raise JobFailed(f"{self.path}: cannot be read: {error}") from error

    def _skip(self, row: csv.InvalidRow) -> str:
        reason = f"{row.actual_columns} fields where the header has {row.expected_columns}"
        self.bad.append(bad_line(Place(self.path, row.number - 1), reason, row.text.encode()))
        return "skip"


def read_csv(
    open_stream: Callable[[], AbstractContextManager[IO[bytes]]], delimiter: str, path: str, block_size: int
) -> Iterator[tuple[pa.Table, list[Place], list[BadRow]]]:
    """Yields (rows, their places, bad rows) of a file with a header.

    Raises:
        JobFailed: the file as a whole is no CSV.
    """
    reading = partial(_Reading, open_stream, delimiter, path)
    types, block_size = _column_types(reading, block_size)
    run = reading(block_size)
    number = 1  # the header is row 1 of the file, number 0
    for batch in run.batches():
        places = []
        skipped = {bad.place.number for bad in run.bad}
        while len(places) < batch.num_rows:
            if number not in skipped:
                places.append(Place(path, number))
            number += 1
        table, kept, broken = _typed(batch, types, places)
        bad = [*run.bad, *broken]
        run.bad.clear()
        yield table, kept, bad
    if run.bad:
        yield pa.table({}), [], run.bad


def _column_types(reading: Callable[[int], _Reading], block_size: int) -> tuple[dict[str, pa.DataType], int]:
    """The type of each column over the whole file, and a block size that its longest row fits."""
    while True:
        fitting: dict[str, set[str]] = {}
        filled: set[str] = set()
        try:
            for batch in reading(block_size).batches():
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    kinds = fitting.setdefault(name, set(_PATTERNS))
                    values = column.filter(pc.call_function("not_equal", [column, b""])) if kinds else column
                    if kinds and len(values):
                        filled.add(name)
                        kinds -= {kind for kind in kinds if not _all_match(values, kind)}
        except pa.ArrowInvalid:  # a row longer than the block
            if block_size >= _LARGEST_BLOCK:
                raise
            block_size *= 4
            continue
        types = {
            name: next((kind for pattern, kind in _PATTERNS.items() if pattern in kinds), pa.large_string())
            if name in filled
            else pa.large_string()
            for name, kinds in fitting.items()
        }
        return types, block_size


def _typed(
    batch: pa.RecordBatch, types: dict[str, pa.DataType], places: list[Place]
) -> tuple[pa.Table, list[Place], list[BadRow]]:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    keep = np.ones(batch.num_rows, dtype=bool)
    bad = []
    for name, column in columns.items():
        if types[name] == pa.large_string():
            for index in _broken_utf8(column):
                if keep[index]:
                    bad.append(bad_line(places[index], f"broken UTF-8 in '{name}'", column[index].as_py()))
                keep[index] = False
    mask = pa.array(keep)
    arrays = {name: _cast(column.filter(mask), types[name]) for name, column in columns.items()}
    return pa.table(arrays), [place for place, kept in zip(places, keep.tolist(), strict=True) if kept], bad


def _broken_utf8(column: pa.Array) -> list[int]:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return [index for index, value in enumerate(column.to_pylist()) if not _is_utf8(value)]
    return []


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    texts = column.cast(pa.string())
    if kind == pa.large_string():
        return texts.cast(kind)
    empty = pc.call_function("equal", [texts, ""])
    return pc.call_function("if_else", [empty, pa.scalar(None, pa.string()), texts]).cast(kind)


def _all_match(values: pa.Array, pattern: str) -> bool:
    options = pc.MatchSubstringOptions(pattern)
    return pc.call_function("match_substring_regex", [values], options).true_count == len(values)
