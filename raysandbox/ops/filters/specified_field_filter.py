"""Keeps rows by the value of a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.fields import field_list

__all__ = ["SpecifiedFieldFilter"]


@register("specified_field_filter")
class SpecifiedFieldFilter(Filter):
    """Keeps rows whose value of a field, or every element of it, is one of the wanted values.

    Without wanted values all rows stay.
    """

    example: ClassVar[Mapping[str, Any]] = {"field_key": "meta.language", "target_value": ["en", "zh"]}
    reads: ClassVar[tuple[str, ...]] = ("stats",)

    field_key: str = Field(min_length=1, description="field to look at; levels separated by dots")
    target_value: list[Any] = Field([], description="values to keep")

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """Which values are wanted does not change the values."""
        return super().thresholds() | {"target_value"}

    def statistics(self) -> tuple[Stat, ...]:
        """The field itself."""
        return (Stat(self.field_key),)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the field's values; values without a common type as texts."""
        values = field_list(batch, self.field_key)
        try:
            array = pa.array(values)
        except pa.ArrowException:
            array = pa.array([_text(value) for value in values], pa.large_string())
        return {self.field_key: array}

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether its value, or all of a list, is wanted."""
        values = stats[self.field_key].to_pylist()
        if not self.target_value:
            return np.ones(len(values), bool)
        rows = [value if isinstance(value, list) else [value] for value in values]
        wanted = np.array([all(value in self.target_value for value in row) for row in rows], bool)
        return ~wanted if self.reversed_range else wanted


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
