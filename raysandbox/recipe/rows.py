"""JSON rows and Arrow columns, both ways, without altering a value.

A row of JSON is kept as the object it was, beside the columns that operators see: Arrow gives all
rows of a column one type (a missing key becomes null, 1 beside 1.5 becomes 1.0), and what is
written must neither show that nor depend on which rows shared a block.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from raysandbox.ops.batch import JSON_TEXT

__all__ = [
    "JSON_TEXT",
    "column_of",
    "decode_row",
    "decode_value",
    "encode_row",
    "exact_table",
    "has_long_number",
    "table_of",
]

Row = dict[str, Any]

_DIGITS = bytes(ord("0") if chr(code).isdigit() else ord(" ") for code in range(128)) + b" " * 128
# What pyarrow raises for values without a common type, or too large for it.
_NO_COMMON_TYPE = (pa.ArrowException, OverflowError, TypeError)


def has_long_number(data: bytes) -> bool:
    """Whether there is a run of 19 digits, which orjson may read as a float; fast on large blocks."""
    return b"0" * 19 in data.translate(_DIGITS)


def decode_row(line: bytes, *, long_numbers: bool) -> Row:
    """The object of one line of JSON; integers keep every digit, NaN is accepted.

    Args:
        line: UTF-8 text.
        long_numbers: whether the line may hold numbers of 19 digits and more.

    Raises:
        ValueError: not UTF-8, not JSON, or not an object; says which.
    """
    if long_numbers and has_long_number(line):
        row = _decode_slowly(line)
    else:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = _decode_slowly(line)
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object but {_kind(row)}")
    return row


def _decode_slowly(line: bytes) -> Any:
    """The standard library's reader: knows big integers and NaN, which orjson does not."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"broken UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(text, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is not a character") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error.msg} at column {error.colno}") from None
    return value


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def decode_value(text: str) -> Any:
    """A value of JSON that `encode_row` wrote; integers keep every digit."""
    line = b'{"":' + text.encode() + b"}"
    return decode_row(line, long_numbers=True)[""]


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One line of JSON without its end; characters unescaped, NaN and infinities as null."""
    try:
        return orjson.dumps(row, default=_plain)
    except TypeError:  # an integer beyond 64 bits
        plain = _without_nan(row)
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """Values that Parquet knows and JSON does not."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Columns of the rows' keys, in order of appearance; an absent key is null."""
    names = dict.fromkeys(chain.from_iterable(rows))
    fields, arrays = [], []
    for name in names:
        field, array = column_of(name, [row.get(name) for row in rows])
        fields.append(field)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def column_of(name: str, values: Iterable[Any]) -> tuple[pa.Field, pa.Array]:
    """An Arrow column of Python values; without a common type, of their JSON texts."""
    values = list(values)
    first = next((value for value in values if value is not None), None)
    try:
        array = pa.array(values, pa.large_string() if isinstance(first, str) else None)
        if pa.types.is_floating(array.type) and any(isinstance(value, bool) for value in values):
            raise TypeError("pyarrow reads a boolean after a float as a float")
    except _NO_COMMON_TYPE:
        texts = [None if value is None else encode_row(value).decode() for value in values]
        array = pa.array(texts, pa.large_string())
        return pa.field(name, array.type, metadata=JSON_TEXT), array
    return pa.field(name, array.type), array


def exact_table(rows: Sequence[Row]) -> tuple[pa.Table, pa.Schema]:
    """Columns that keep every value as it was, and the types that the values have together.

    A type that several kinds of values share (1 beside 1.5, objects with different keys) does not
    say what each was. Such a column holds JSON texts; it gets its type once all rows are known.
    """
    typed = table_of(rows)
    exact = typed
    for index, field in enumerate(typed.schema):
        values = [row.get(field.name) for row in rows]
        if field.metadata != JSON_TEXT and not _is_exact(field.type, values):
            texts = [None if value is None else encode_row(value).decode() for value in values]
            text_field = pa.field(field.name, pa.large_string(), metadata=JSON_TEXT)
            exact = exact.set_column(index, text_field, pa.array(texts, text_field.type))
    return exact, typed.schema


def _is_exact(kind: pa.DataType, values: Sequence[Any]) -> bool:
    """Whether an Arrow type says of each value what it was."""
    if pa.types.is_floating(kind):
        return all(value is None or isinstance(value, float) for value in values)
    if pa.types.is_list(kind):
        return not pa.types.is_floating(kind.value_type) and _is_exact(kind.value_type, ())
    return not pa.types.is_struct(kind)
