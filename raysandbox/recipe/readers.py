"""Reads tasks as blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any, NamedTuple, cast

import numpy as np
import orjson
import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.recipe.arrow_reader import read_batches
from raysandbox.recipe.blocks import BadRow, Block, Needs, Place, bad_line, block_of_rows, block_of_table
from raysandbox.recipe.csv_reader import read_csv
from raysandbox.recipe.inputs import InputFile, ReadTask, Span
from raysandbox.recipe.remote import DAMAGED, open_path, open_unpacked
from raysandbox.recipe.rows import Row, decode_row, encode_row, has_long_number

__all__ = ["BLOCK_BYTES", "count_rows", "open_file", "read_task"]

BLOCK_BYTES = 16 << 20  # of a task, at most
_READ_BYTES = 1 << 20  # of rows that operators get together: what they make of them stays in the processor's cache
_BOM = b"\xef\xbb\xbf"
# What a file that is damaged as a whole or out of reach makes its reader raise; no single row is at fault.
_UNREADABLE = (*DAMAGED, OSError, pa.ArrowException)


@dataclass(frozen=True)
class _Piece:
    """Some rows of a span: objects of JSON or a typed table, and the bad ones among them."""

    places: Sequence[Place]
    rows: Sequence[Row] | None = None
    table: pa.Table | None = None
    bad: Sequence[BadRow] = ()


def read_task(task: ReadTask, needs: Needs) -> Iterator[Block]:
    """Yields the rows of a task in order.

    Raises:
        JobFailed: a file is damaged as a whole.
    """
    for span in task.spans:
        taken = 0
        for piece in _pieces(span):
            if span.picked is not None:
                total = len(piece.places) + len(piece.bad)
                piece = _picked(piece, span.picked[taken : taken + total])
                taken += total
            if piece.rows is not None:
                block = block_of_rows(piece.rows, piece.places, needs, span.file.folder)
            else:
                block = block_of_table(cast(pa.Table, piece.table), piece.places, needs, span.file.folder)
            yield replace(block, bad=sorted([*piece.bad, *block.bad], key=lambda bad: bad.place))


def count_rows(span: Span) -> int:
    """Number of rows of a span, good or bad."""
    if span.file.format == "jsonl":
        lines = (line for chunk in _jsonl(span) for line in chunk.data.split(b"\n"))
        return sum(1 for line in lines if line and not line.isspace())
    if span.file.format == "arrow":
        return sum(batch.num_rows for batch in read_batches(span.file.path, span.start, span.end))
    return sum(len(piece.places) + len(piece.bad) for piece in _pieces(span))


def _picked(piece: _Piece, picked: np.ndarray) -> _Piece:
    """The rows of a piece that a mix takes; `picked` counts good and bad rows in order."""
    order = sorted([*piece.places, *(bad.place for bad in piece.bad)])
    wanted = {place for place, taken in zip(order, picked.tolist(), strict=True) if taken}
    keep = [place in wanted for place in piece.places]
    return _Piece(
        [place for place in piece.places if place in wanted],
        None if piece.rows is None else [row for row, kept in zip(piece.rows, keep, strict=True) if kept],
        None if piece.table is None else piece.table.filter(pa.array(keep, pa.bool_())),
        [bad for bad in piece.bad if bad.place in wanted],
    )


def _pieces(span: Span) -> Iterator[_Piece]:
    file = span.file
    try:
        if file.format == "jsonl":
            yield from (_lines(chunk, file.path) for chunk in _jsonl(span))
        elif file.format == "json":
            yield from _json(file)
        elif file.format == "parquet":
            yield from _parquet(span)
        elif file.format == "arrow":
            yield from _arrow(span)
        elif file.format == "text":
            yield _text(file)
        else:
            delimiter = "\t" if file.format == "tsv" else ","
            for table, places, bad in read_csv(lambda: open_file(file), delimiter, file.path, _READ_BYTES):
                yield _Piece(places, table=table, bad=bad)
    except _UNREADABLE as error:
        raise JobFailed(f"{file.path}: cannot be read: {error}") from error


def open_file(file: InputFile) -> AbstractContextManager[IO[bytes]]:
    """Opens a file to read its content from the start, unpacked."""
    return open_unpacked(file.path, file.compression)


class _Chunk(NamedTuple):
    """Whole lines.

    Attributes:
        data: their bytes.
        number: of the first of them, counted from `start`.
        start: byte of the unpacked file where counting began.
    """

    data: bytes
    number: int
    start: int


def _jsonl(span: Span) -> Iterator[_Chunk]:
    """The lines of a span: a line belongs to the span that it starts in."""
    with _at_first_line(span) as (stream, start):
        position, number = start, 0
        carried: list[bytes] = []  # of a line longer than what is read at once
        while span.end is None or position < span.end:
            wanted = _READ_BYTES if span.end is None else min(_READ_BYTES, span.end - position)
            data = stream.read(wanted)
            if not data:
                break
            position += len(data)
            if position == span.end and not data.endswith(b"\n"):
                data += stream.readline()
            end = data.rfind(b"\n") + 1
            if end:
                lines = b"".join([*carried, data[:end]])
                yield _Chunk(lines, number, start)
                number += lines.count(b"\n")
                carried.clear()
            carried.append(data[end:])
        if last := b"".join(carried):
            yield _Chunk(last, number, start)


@contextmanager
def _at_first_line(span: Span) -> Iterator[tuple[IO[bytes], int]]:
    """The content of a file from the first line that starts in a span, and where that is."""
    file = span.file
    is_piece = file.compression is None and span.end is not None
    with open_path(file.path) if is_piece else open_file(file) as stream:
        start = span.start
        if start:
            _go_to(stream, start - 1, is_piece)
            start += len(stream.readline()) - 1
        yield stream, start


def _go_to(stream: IO[bytes], position: int, can_seek: bool) -> None:
    if can_seek:
        stream.seek(position)
        return
    while position > 0 and (data := stream.read(min(position, BLOCK_BYTES))):
        position -= len(data)


def _lines(chunk: _Chunk, path: str) -> _Piece:
    """The rows of whole lines."""
    data, number, start = chunk
    if start + number == 0:
        data = data.removeprefix(_BOM)
    long_numbers = has_long_number(data)
    rows: list[Row] = []
    places: list[Place] = []
    bad: list[BadRow] = []
    for offset, line in enumerate(data.split(b"\n")):
        if not line or line.isspace():
            continue
        place = Place(path, number + offset, start)
        try:
            rows.append(decode_row(line, long_numbers=long_numbers))
            places.append(place)
        except ValueError as error:
            bad.append(bad_line(place, str(error), line))
    return _Piece(places, rows, bad=bad)


def _json(file: InputFile) -> Iterator[_Piece]:
    """A list of objects, or objects line by line."""
    with open_file(file) as stream:
        data = stream.read().removeprefix(_BOM)
    if not data.lstrip().startswith(b"["):
        yield _lines(_Chunk(data, 0, 0), file.path)
        return
    items = _json_list(data, file.path)
    size = max(1, len(items) * _READ_BYTES // max(len(data), 1))
    for first in range(0, len(items), size):
        numbered = [(Place(file.path, first + index), item) for index, item in enumerate(items[first : first + size])]
        good = [(place, item) for place, item in numbered if isinstance(item, dict)]
        bad = [
            bad_line(place, "not a JSON object", encode_row(item))
            for place, item in numbered
            if not isinstance(item, dict)
        ]
        yield _Piece([place for place, _ in good], [item for _, item in good], bad=bad)


def _json_list(data: bytes, path: str) -> list[Any]:
    """The elements of a list; a list that does not end is no row's fault."""
    try:
        if not has_long_number(data):
            return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass  # the slower reader knows NaN too, and says what is wrong
    wrapped = b'{"rows":' + data + b"}"
    try:
        return decode_row(wrapped, long_numbers=True)["rows"]
    except ValueError as error:
        raise JobFailed(f"{path}: cannot be read: {error}") from None


def _arrow(span: Span) -> Iterator[_Piece]:
    path = span.file.path
    number = sum(batch.num_rows for batch in read_batches(path, 0, span.start))
    for batch in read_batches(path, span.start, span.end):
        whole = pa.Table.from_batches([batch]).replace_schema_metadata(None)
        step = max(1, whole.num_rows * BLOCK_BYTES // max(whole.nbytes, 1))
        for first in range(0, whole.num_rows, step):
            table = whole.slice(first, step)
            yield _Piece([Place(path, number + first + index) for index in range(table.num_rows)], table=table)
        number += whole.num_rows


def _parquet(span: Span) -> Iterator[_Piece]:
    import pyarrow.parquet as pq

    with _seekable(span.file) as stream, pq.ParquetFile(stream) as parquet:
        groups = range(span.start, parquet.num_row_groups if span.end is None else span.end)
        metadata = parquet.metadata
        number = sum(metadata.row_group(group).num_rows for group in range(span.start))
        size = sum(metadata.row_group(group).total_byte_size for group in groups)
        count = sum(metadata.row_group(group).num_rows for group in groups)
        step = max(1, count * _READ_BYTES // max(size, 1))
        for batch in parquet.iter_batches(step, list(groups)):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            yield _Piece([Place(span.file.path, number + index) for index in range(table.num_rows)], table=table)
            number += table.num_rows


@contextmanager
def _seekable(file: InputFile) -> Iterator[Any]:
    """The content of a file as Parquet needs it; what can only be streamed is taken into memory."""
    if file.compression is None and file.seekable:
        with open_path(file.path) as stream:
            yield stream
        return
    with open_file(file) as stream:
        yield pa.BufferReader(stream.read())


def _text(file: InputFile) -> _Piece:
    """A whole file as one row."""
    place = Place(file.path, 0)
    with open_file(file) as stream:
        data = stream.read()
    try:
        return _Piece([place], [{"text": data.decode("utf-8-sig")}])
    except UnicodeDecodeError as error:
        return _Piece([], [], bad=[bad_line(place, f"broken UTF-8 at byte {error.start}", data)])
