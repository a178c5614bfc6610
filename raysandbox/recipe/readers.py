"""Reads tasks as blocks of bounded size."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, cast

import numpy as np
import orjson
import pyarrow as pa
import zstandard

from raysandbox.core.errors import JobFailed
from raysandbox.recipe.blocks import BadRow, Block, Needs, Place, bad_line, block_of_rows, block_of_table
from raysandbox.recipe.csv_reader import read_csv
from raysandbox.recipe.inputs import InputFile, ReadTask, Span
from raysandbox.recipe.rows import Row, decode_row, encode_row, has_long_number

__all__ = ["BLOCK_BYTES", "count_rows", "open_file", "read_task"]

BLOCK_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"
# What a file that is damaged as a whole makes its reader raise; no single row is at fault.
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, pa.ArrowException)


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
            yield from _jsonl(span)
        elif file.format == "json":
            yield from _json(file)
        elif file.format == "parquet":
            yield from _parquet(span)
        elif file.format == "text":
            yield _text(file)
        else:
            delimiter = "\t" if file.format == "tsv" else ","
            for table, places, bad in read_csv(lambda: open_file(file), delimiter, file.path, BLOCK_BYTES):
                yield _Piece(places, table=table, bad=bad)
    except _DAMAGED as error:
        raise JobFailed(f"{file.path}: cannot be read: {error}") from error


def open_file(file: InputFile) -> IO[bytes]:
    """Opens a file for reading its content, unpacked."""
    if file.compression == "gzip":
        return cast("IO[bytes]", gzip.open(file.path, "rb"))
    if file.compression == "zstd":
        unpack = zstandard.ZstdDecompressor()
        return cast("IO[bytes]", unpack.stream_reader(open(file.path, "rb"), read_across_frames=True))
    return open(file.path, "rb")


def _jsonl(span: Span) -> Iterator[_Piece]:
    if span.end is None:
        with open_file(span.file) as stream:
            yield from _line_pieces(stream, span.file.path)
        return
    with open(span.file.path, "rb") as stream:
        if span.start:  # a line belongs to the span that it starts in
            stream.seek(span.start - 1)
            stream.readline()
        start = stream.tell()
        if start < span.end:
            data = stream.read(span.end - start)
            if not data.endswith(b"\n"):
                data += stream.readline()
            yield _lines(data.removeprefix(_BOM) if start == 0 else data, span.file.path, 0, start)


def _line_pieces(stream: IO[bytes], path: str) -> Iterator[_Piece]:
    number = 0
    carried: list[bytes] = []
    while data := stream.read(BLOCK_BYTES):
        end = data.rfind(b"\n") + 1
        if end == 0:  # inside a line longer than a block
            carried.append(data)
            continue
        lines = b"".join([*carried, data[:end]])
        yield _lines(lines.removeprefix(_BOM) if number == 0 else lines, path, number, 0)
        number += lines.count(b"\n")
        carried = [data[end:]]
    if last := b"".join(carried):
        yield _lines(last, path, number, 0)


def _lines(data: bytes, path: str, number: int, start: int) -> _Piece:
    """Rows of whole lines. `number` is the first line's, counted from byte `start` of the file."""
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
        yield _lines(data, file.path, 0, 0)
        return
    items = _json_list(data, file.path)
    size = max(1, len(items) * BLOCK_BYTES // max(len(data), 1))
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


def _parquet(span: Span) -> Iterator[_Piece]:
    import pyarrow.parquet as pq

    with open_file(span.file) as stream, pq.ParquetFile(_seekable(stream, span.file)) as parquet:
        groups = range(span.start, parquet.num_row_groups if span.end is None else span.end)
        metadata = parquet.metadata
        number = sum(metadata.row_group(group).num_rows for group in range(span.start))
        size = sum(metadata.row_group(group).total_byte_size for group in groups)
        count = sum(metadata.row_group(group).num_rows for group in groups)
        step = max(1, count * BLOCK_BYTES // max(size, 1))
        for batch in parquet.iter_batches(step, list(groups)):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            yield _Piece([Place(span.file.path, number + index) for index in range(table.num_rows)], table=table)
            number += table.num_rows


def _seekable(stream: IO[bytes], file: InputFile) -> Any:
    return pa.BufferReader(stream.read()) if file.compression else stream


def _text(file: InputFile) -> _Piece:
    """A whole file as one row."""
    place = Place(file.path, 0)
    with open_file(file) as stream:
        data = stream.read()
    try:
        return _Piece([place], [{"text": data.decode("utf-8-sig")}])
    except UnicodeDecodeError as error:
        return _Piece([], [], bad=[bad_line(place, f"broken UTF-8 at byte {error.start}", data)])
