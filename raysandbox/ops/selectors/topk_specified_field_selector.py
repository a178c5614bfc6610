"""Keeps the rows with the largest or smallest values of a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysandbox.core.registry import register
from raysandbox.ops.batch import Batch
from raysandbox.ops.field_selector import TopSelector
from raysandbox.ops.fields import field_array, number_array

__all__ = ["TopkSpecifiedFieldSelector"]


@register("topk_specified_field_selector")
class TopkSpecifiedFieldSelector(TopSelector):
    """Keeps the rows with the largest, or smallest, values of a field.

    Texts of a column are ranked as texts; those below a level are read as numbers, and a list counts
    by its mean, as in Data-Juicer. What is missing or no number ranks last. Without a field or a
    bound all rows stay.
    """

    example: ClassVar[Mapping[str, Any]] = {"field_key": "__dj__stats__.text_len", "top_ratio": 0.5}

    def values(self, batch: Batch) -> pa.Array:
        """The values as they are ranked: texts or numbers."""
        column = None if "." in self.field_key else field_array(batch, self.field_key)
        if column is not None and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return column.cast(pa.large_string())
        return number_array(batch, self.field_key, lists=True)

    def select(self, values: pa.Array) -> np.ndarray:
        """Returns which rows rank first; of equal values the first rows stay."""
        order = pc.call_function(
            "array_sort_indices",
            [values],
            pc.ArraySortOptions("descending" if self.reverse else "ascending", null_placement="at_end"),
        )
        keep = np.zeros(len(values), bool)
        keep[order.to_numpy()[: self.count(len(values))]] = True
        return keep
