"""Keeps rows by the number in a field."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.fields import number_array

__all__ = ["SpecifiedNumericFieldFilter"]


@register("specified_numeric_field_filter")
class SpecifiedNumericFieldFilter(Filter):
    """Keeps rows whose number in a field lies within a range; rows without a number never stay."""

    example: ClassVar[Mapping[str, Any]] = {"field_key": "meta.score", "min_value": 0.5, "max_value": 10}
    reads: ClassVar[tuple[str, ...]] = ("stats",)

    field_key: str = Field(min_length=1, description="field to look at; levels separated by dots")
    min_value: float | None = Field(-sys.maxsize, description="smallest number")
    max_value: float | None = Field(sys.maxsize, description="largest number")

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """The bounds do not change the numbers."""
        return super().thresholds() | {"min_value", "max_value"}

    def statistics(self) -> tuple[Stat, ...]:
        """The field itself."""
        return (Stat(self.field_key, "min_value", "max_value"),)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the field as numbers; texts are read, null where there is no number.

        Raises:
            RowFaults: some values are lists or mappings.
        """
        return {self.field_key: number_array(batch, self.field_key, lists=False)}

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether it has a number that is within bounds."""
        numbers = stats[self.field_key].to_numpy(zero_copy_only=False).astype(np.float64)
        return super().keep(stats) & ~np.isnan(numbers)
