"""Values of a field that a user names, its levels separated by dots: "meta.source.name"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from raysandbox.ops.batch import JSON_TEXT, STATS_COLUMN, Batch, RowFaults

__all__ = ["field_array", "field_list", "number_array", "scalar_list"]

_AS_THEY_ARE = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)


def field_array(batch: Batch, key: str) -> pa.Array | None:
    """The values of a field as an Arrow array, null where a row does not have it.

    Args:
        batch: the rows; `__dj__stats__` stands for their statistics so far.
        key: the field.

    Returns:
        the values; nulls without a type where no row has the field; None where the column's values
        have no common type, and `field_list` must be asked.
    """
    head, *levels = key.split(".")
    if head == STATS_COLUMN and levels:
        values = batch.stats.get(levels.pop(0))
    elif _is_json(batch, head):
        return None
    else:
        values = batch.table.column(head).combine_chunks() if head in batch.table.column_names else None
    for level in levels:
        if values is None or not pa.types.is_struct(values.type) or values.type.get_field_index(level) < 0:
            return pa.nulls(batch.num_rows)
        values = pc.call_function("struct_field", [values], pc.StructFieldOptions([level]))
    return pa.nulls(batch.num_rows) if values is None else values


def field_list(batch: Batch, key: str) -> list[Any]:
    """The values of a field as Python values, None where a row does not have it."""
    values = field_array(batch, key)
    if values is not None:
        return values.to_pylist()
    head, *levels = key.split(".")
    texts = batch.table.column(head).to_pylist()
    return [_below(None if text is None else orjson.loads(text), levels) for text in texts]


def scalar_list(batch: Batch, key: str) -> list[Any]:
    """The values of a field that must be texts, numbers or missing.

    Raises:
        RowFaults: some are lists or mappings.
    """
    values = field_list(batch, key)
    faults = {row: f"'{key}' is a {type(v).__name__}" for row, v in enumerate(values) if isinstance(v, list | dict)}
    if faults:
        raise RowFaults(faults)
    return values


def number_array(batch: Batch, key: str, *, lists: bool) -> pa.Array:
    """The values of a field as numbers; texts are read, and null is what is no number.

    Args:
        batch: the rows.
        key: the field.
        lists: whether a list counts by its mean.

    Returns:
        numbers of the field's own type if it is one, else float64; nulls without a type where no row
        has the field.

    Raises:
        RowFaults: some values are lists or mappings, and `lists` is not set.
    """
    values = field_array(batch, key)
    if values is not None and any(is_type(values.type) for is_type in _AS_THEY_ARE):
        return values
    found = field_list(batch, key) if lists else scalar_list(batch, key)
    return pa.array([_number(value) for value in found], pa.float64())


def _is_json(batch: Batch, column: str) -> bool:
    """Whether the column holds JSON texts, since its values have no common type."""
    return column in batch.table.column_names and batch.table.schema.field(column).metadata == JSON_TEXT


def _below(value: Any, levels: list[str]) -> Any:
    for level in levels:
        value = value.get(level) if isinstance(value, Mapping) else None
    return value


def _number(value: Any) -> float | None:
    if value == []:
        return None
    try:
        return float(np.mean(value)) if isinstance(value, list) else float(value)
    except (TypeError, ValueError):
        return None
