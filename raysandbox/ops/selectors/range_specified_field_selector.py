"""Keeps rows by the rank of a field's value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt

from raysandbox.core.registry import register
from raysandbox.ops.batch import Batch
from raysandbox.ops.field_selector import FieldSelector, Share
from raysandbox.ops.fields import number_array

__all__ = ["RangeSpecifiedFieldSelector"]


@register("range_specified_field_selector")
class RangeSpecifiedFieldSelector(FieldSelector):
    """Keeps the rows whose value of a field ranks within a range, smallest values first.

    Without a field, a lower or an upper bound all rows stay. Text is read as a number, a list
    counts by its mean; what is missing or no number ranks first.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "field_key": "__dj__stats__.text_len",
        "lower_percentile": 0.1,
        "upper_percentile": 0.9,
    }

    lower_percentile: Share | None = Field(None, description="share of the rows to drop from the lower end")
    upper_percentile: Share | None = Field(None, description="share of the rows up to which to keep")
    lower_rank: PositiveInt | None = Field(None, description="number of rows to drop; the larger bound counts")
    upper_rank: PositiveInt | None = Field(None, description="rank up to which to keep; the smaller bound counts")

    def selects(self) -> bool:
        """Whether there are a field, a lower and an upper bound."""
        lower = self.lower_percentile is not None or self.lower_rank is not None
        upper = self.upper_percentile is not None or self.upper_rank is not None
        return bool(self.field_key) and lower and upper

    def values(self, batch: Batch) -> pa.Array:
        """The values as numbers."""
        return number_array(batch, self.field_key, lists=True)

    def select(self, values: pa.Array) -> np.ndarray:
        """Returns which rows stay; of equal values the first rows stay."""
        num_rows = len(values)
        lowers = [0 if self.lower_percentile is None else int(self.lower_percentile * num_rows), self.lower_rank or 0]
        uppers = [num_rows if self.upper_percentile is None else int(self.upper_percentile * num_rows)]
        lower, upper = max(lowers), min(uppers + ([self.upper_rank] if self.upper_rank else []))
        upper = max(lower, upper)
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        numbers = np.where(np.isnan(numbers), -np.inf, numbers)
        smallest = np.argsort(numbers, kind="stable")[:upper]
        largest = smallest[np.argsort(-numbers[smallest], kind="stable")[: upper - lower]]
        keep = np.zeros(num_rows, bool)
        keep[largest] = True
        return keep
