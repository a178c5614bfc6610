"""Bytes of content of a table: a sum over its values, so that it does not show how rows were cut into blocks."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["content_size"]


def content_size(table: pa.Table) -> int:
    """Bytes of all values that are not null; without validity, offsets and padding."""
    return sum(_size(chunk) for column in table.columns for chunk in column.chunks)


def _size(array: pa.Array) -> int:
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _size(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return _size(array.dictionary_decode())
    if pa.types.is_null(kind):
        return 0
    if pa.types.is_struct(kind):
        return sum(map(_size, array.flatten()))
    if pa.types.is_nested(kind):
        return _size(array.flatten())
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_primitive(kind):
        return (len(array) - array.null_count) * max(1, kind.bit_width // 8)
    return pc.call_function("sum", [pc.call_function("binary_length", [array])]).as_py() or 0
