"""Joins the parts that units left into output files, in input order, as a stream."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

import pyarrow as pa
import zstandard
from pyarrow import ipc

from raysandbox.core.files import atomic_path
from raysandbox.recipe.parts import UnitReport
from raysandbox.recipe.rows import JSON_TEXT, decode_row, encode_row, has_long_number

__all__ = ["Target", "shard_sizes", "write_output"]

_ROW_GROUP = 10_000  # rows; fixed, so that the file does not depend on the blocks
_CHUNK = 1 << 20


class Target:
    """An output file or its shards.

    Args:
        path: `export_path`.
        format: "jsonl", "json" or "parquet".
        suffix: what the path ends in, without the first dot.
        shard_bytes: bytes per file; 0 for one file.
    """

    def __init__(self, path: Path, format: str, suffix: str, shard_bytes: int = 0) -> None:
        self.path = path
        self.format = format
        self.suffix = suffix
        self._shard_bytes = shard_bytes
        self._stem = path.name.split(".")[0]

    @property
    def sink(self) -> Literal["tables", "lines"]:
        """What units should leave for it."""
        return "tables" if self.format == "parquet" else "lines"

    def shards(self, rows: int, size: int) -> list[tuple[Path, int]]:
        """The files to write and the rows of each, named as Data-Juicer does: stem-00-of-12.jsonl."""
        if self._shard_bytes <= 0:
            return [(self.path, rows)]
        counts = shard_sizes(rows, size // self._shard_bytes + 1)
        width = len(str(len(counts))) + 1
        name = f"{self._stem}-{{:0{width}d}}-of-{len(counts):0{width}d}.{self.suffix}"
        return [(self.path.with_name(name.format(index)), count) for index, count in enumerate(counts)]

    def result(self, shards: Sequence[tuple[Path, int]]) -> str:
        """What a later job reads: the file, or the glob of the shards just written."""
        if self._shard_bytes <= 0:
            return str(self.path)
        total = shards[0][0].name.split("-of-")[1]
        return str(self.path.with_name(f"{self._stem}-*-of-{total}"))

    def remove_stale(self, shards: Sequence[tuple[Path, int]]) -> None:
        """Removes what an earlier run left under names that would now be read together with these."""
        written = {path for path, _ in shards}
        old = re.compile(rf"{re.escape(self._stem)}-\d+-of-\d+\.{re.escape(self.suffix)}")
        if self._shard_bytes > 0:
            for path in self.path.parent.iterdir():
                if old.fullmatch(path.name) and path not in written:
                    path.unlink()


def shard_sizes(rows: int, shards: int) -> list[int]:
    """Rows per shard: as equal as can be, the longer ones first; at least one shard."""
    shards = max(1, min(shards, rows))
    return [rows // shards + (index < rows % shards) for index in range(shards)]


def write_output(target: Target, reports: Sequence[UnitReport]) -> str:
    """Writes the output and returns its path; every file appears whole or not at all.

    Args:
        target: where and how.
        reports: the units' reports, in input order.
    """
    parts = [part for report in reports for part in report.parts]
    shards = target.shards(sum(report.rows_out for report in reports), sum(report.size for report in reports))
    if target.format == "parquet":
        _write_parquet(shards, parts, common_schema(schema for report in reports for schema in report.schemas))
    else:
        _write_json(target, shards, parts)
    target.remove_stale(shards)
    return target.result(shards)


def _write_json(target: Target, shards: Sequence[tuple[Path, int]], parts: Sequence[Path]) -> None:
    if len(shards) == 1 and target.format == "jsonl":
        with atomic_path(shards[0][0]) as temporary, _open(temporary, target.suffix) as output:
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, output, _CHUNK)
        return
    lines = _lines(parts)
    for path, count in shards:
        with atomic_path(path) as temporary, _open(temporary, target.suffix) as output:
            if target.format == "jsonl":
                for _ in range(count):
                    output.write(next(lines))
            else:
                _write_list(output, lines, count)


def _write_list(output: IO[bytes], lines: Iterator[bytes], count: int) -> None:
    output.write(b"[")
    for index in range(count):
        output.write((b",\n" if index else b"\n") + next(lines).rstrip(b"\n"))
    output.write(b"\n]\n")


def _lines(parts: Iterable[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as stream:
            yield from stream


@contextmanager
def _open(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if suffix.endswith(".gz"):  # without the time of writing: equal rows give equal bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        elif suffix.endswith(".zst"):
            with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield file


class _UnfitError(Exception):
    """A column holds values that its type does not: integers too large to stand beside fractions."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def _write_parquet(shards: Sequence[tuple[Path, int]], parts: Sequence[Path], schema: pa.Schema) -> None:
    while True:
        try:
            _write_tables(shards, _TableStream(parts, schema), schema)
            return
        except _UnfitError as error:
            position = schema.get_field_index(error.column)
            schema = schema.set(position, _json_text(error.column))


def _write_tables(shards: Sequence[tuple[Path, int]], tables: _TableStream, schema: pa.Schema) -> None:
    import pyarrow.parquet as pq

    for path, count in shards:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(path))
            writer = stack.enter_context(pq.ParquetWriter(str(temporary), schema, compression="zstd"))
            while count > 0 and schema.names:  # rows without any key hold nothing
                table = tables.take(min(count, _ROW_GROUP))
                writer.write_table(table)
                count -= table.num_rows


class _TableStream:
    """The rows of parts one after the other, all with the same columns."""

    def __init__(self, parts: Iterable[Path], schema: pa.Schema) -> None:
        self._tables = (_read(part, schema) for part in parts)
        self._rest = schema.empty_table()

    def take(self, count: int) -> pa.Table:
        """The next rows, exactly `count`."""
        while self._rest.num_rows < count:
            self._rest = pa.concat_tables([self._rest, next(self._tables)])
        taken, self._rest = self._rest.slice(0, count), self._rest.slice(count)
        return taken.combine_chunks()


def _read(part: Path, schema: pa.Schema) -> pa.Table:
    """A part with the columns and types of the common schema."""
    if part.suffix == ".arrow":
        with pa.memory_map(str(part)) as stream, ipc.open_file(stream) as reader:
            table = reader.read_all()
        return pa.Table.from_arrays([_column_as(table, field) for field in schema], schema=schema)
    with part.open("rb") as stream:
        rows = [decode_row(line, long_numbers=has_long_number(line)) for line in stream]
    return pa.Table.from_arrays(
        [_array_as([row.get(field.name) for row in rows], field) for field in schema], schema=schema
    )


def _column_as(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(field.name)
    if field.metadata == JSON_TEXT:
        return _array_as(column.to_pylist(), field)
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid:
        raise _UnfitError(field.name) from None


def _array_as(values: Sequence[Any], field: pa.Field) -> pa.Array:
    if field.metadata == JSON_TEXT:
        values = [None if value is None else encode_row(value).decode() for value in values]
    try:
        return pa.array(values, field.type)
    except pa.ArrowInvalid:
        raise _UnfitError(field.name) from None


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Every column in order of appearance, with a type that holds all of its values.

    Integers give way to fractions, missing fields are null; values without a common type become
    their JSON texts, and so do objects without keys, which Parquet does not know.
    """
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            known = fields.get(field.name)
            fields[field.name] = field if known is None else _common(known, field)
    return pa.schema([_json_text(name) if _holds_empty(f.type) else f for name, f in fields.items()])


def _common(one: pa.Field, other: pa.Field) -> pa.Field:
    for field, beside in ((one, other), (other, one)):
        if field.metadata == JSON_TEXT:
            return field if pa.types.is_null(beside.type) else _json_text(one.name)
    try:
        return pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowTypeError:
        return _json_text(one.name)


def _json_text(name: str) -> pa.Field:
    return pa.field(name, pa.large_string(), metadata=JSON_TEXT)


def _holds_empty(kind: pa.DataType) -> bool:
    """Whether there is a struct without fields in a type."""
    if pa.types.is_struct(kind) and kind.num_fields == 0:
        return True
    return any(_holds_empty(kind.field(index).type) for index in range(kind.num_fields))
