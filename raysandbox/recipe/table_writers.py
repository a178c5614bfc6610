"""Output with columns: Parquet, CSV and TSV. Units leave Arrow parts; what all of them hold decides the types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, ipc

from raysandbox.recipe.rows import JSON_TEXT, decode_value, encode_row

__all__ = ["common_schema", "write_tables"]

_ROW_GROUP_ROWS = 10_000
_ROW_GROUP_BYTES = 64 << 20

Writable = Callable[[Path], AbstractContextManager[Path]]


class _UnfitError(Exception):
    """A column holds values that its type does not: integers too large to stand beside fractions."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def write_tables(
    format: str,
    shards: Sequence[tuple[Path, int]],
    parts: Sequence[Path],
    schema: pa.Schema,
    size: int,
    place: Writable,
) -> None:
    """Writes the rows of parts, one after the other, as files.

    Args:
        format: "parquet", "csv" or "tsv".
        shards: the files and the rows of each.
        parts: Arrow files, in input order.
        schema: the columns of all parts.
        size: bytes of content of all parts.
        place: context that yields where to write a file.
    """
    rows = sum(count for _, count in shards)
    # As many rows as fit into memory, on average; the blocks that rows came in must not show.
    step = max(1, min(_ROW_GROUP_ROWS, rows * _ROW_GROUP_BYTES // max(size, 1)))
    while True:
        try:
            tables = _TableStream(parts, schema)
            for path, count in shards:
                with place(path) as target:
                    _write_file(format, target, schema, tables.batches(count, step))
            return
        except _UnfitError as error:
            schema = schema.set(schema.get_field_index(error.column), _json_text(error.column))


def _write_file(format: str, target: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    if format == "parquet":
        import pyarrow.parquet as pq

        with pq.ParquetWriter(str(target), schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
        return
    target.touch()
    if schema.names:  # rows without any key hold nothing
        columns = pa.schema([(field.name, _cell_type(field.type)) for field in schema])
        options = csv.WriteOptions(delimiter="\t" if format == "tsv" else ",")
        with csv.CSVWriter(str(target), columns, write_options=options) as writer:
            for table in tables:
                cells = [_cells(table.column(field.name), field.type) for field in columns]
                writer.write_table(pa.Table.from_arrays(cells, schema=columns))


def _cell_type(kind: pa.DataType) -> pa.DataType:
    """What a value is in a cell: nested values and bytes are texts there."""
    plain = pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return kind if plain else pa.large_string()


def _cells(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """A column as cells: nested values as JSON, bytes as base64; NaN is empty as null is, as in JSON."""
    if pa.types.is_floating(kind):
        return pc.call_function("if_else", [pc.call_function("is_finite", [column]), column, pa.scalar(None, kind)])
    if column.type == kind:
        return column
    texts = [None if value is None else _json(value) for value in column.to_pylist()]
    return pa.array(texts, kind)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else encode_row(value).decode().strip('"')


class _TableStream:
    """The rows of parts one after the other, all with the same columns."""

    def __init__(self, parts: Iterable[Path], schema: pa.Schema) -> None:
        self._tables = (_read(part, schema) for part in parts)
        self._rest = schema.empty_table()

    def batches(self, count: int, step: int) -> Iterator[pa.Table]:
        """The next `count` rows, `step` at a time."""
        if not self._rest.schema.names:
            return
        while count > 0:
            table = self._take(min(count, step))
            yield table
            count -= table.num_rows

    def _take(self, count: int) -> pa.Table:
        while self._rest.num_rows < count:
            self._rest = pa.concat_tables([self._rest, next(self._tables)])
        taken, self._rest = self._rest.slice(0, count), self._rest.slice(count)
        return taken.combine_chunks()


def _read(part: Path, schema: pa.Schema) -> pa.Table:
    """A part with the columns and types of the common schema."""
    with pa.memory_map(str(part)) as stream, ipc.open_file(stream) as reader:
        table = reader.read_all()
    return pa.Table.from_arrays([_column_as(table, field) for field in schema], schema=schema)


def _column_as(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(field.name)
    is_json, wants_json = (table.schema.field(field.name).metadata == JSON_TEXT, field.metadata == JSON_TEXT)
    if is_json and not wants_json:
        return _array_as([None if text is None else decode_value(text) for text in column.to_pylist()], field)
    if wants_json and not is_json:
        texts = [None if value is None else encode_row(value).decode() for value in column.to_pylist()]
        return pa.array(texts, field.type)
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid:
        raise _UnfitError(field.name) from None


def _array_as(values: Sequence[Any], field: pa.Field) -> pa.Array:
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
