"""Keeps rows by the value of a field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.fields import field_list

__all__ = ["SpecifiedFieldFilter"]

_EXACT = 2.0**53  # below which every integer is a float


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
        """The field's values as texts, so that their type does not depend on which rows share a block."""
        return (Stat(self.field_key),)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the field's values: texts as they are, other values as JSON."""
        texts = [_text(value) for value in field_list(batch, self.field_key)]
        return {self.field_key: pa.array(texts, pa.large_string())}

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether its value, or all of a list, is wanted."""
        texts = stats[self.field_key].to_pylist()
        if not self.target_value:
            return np.ones(len(texts), bool)
        targets = [_value(_text(value)) for value in self.target_value]
        verdicts = {text: self._is_wanted(_value(text), targets) for text in set(texts)}
        wanted = np.array([verdicts[text] for text in texts], bool)
        return ~wanted if self.reversed_range else wanted

    @staticmethod
    def _is_wanted(value: Any, targets: list[Any]) -> bool:
        return all(each in targets for each in (value if isinstance(value, list) else [value]))


def _text(value: Any) -> str | None:
    """A value as a text; JSON also for a text that would be read as another value."""
    value = _normal(value)
    if value is None or (isinstance(value, str) and _value(value) == value):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _value(text: str | None) -> Any:
    """The value of `_text`."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _normal(value: Any) -> Any:
    """A value without what a column's type makes of it beside other rows: 1.0 of 1, keys without a value, NaN."""
    if isinstance(value, Mapping):
        return {key: normal for key, item in value.items() if (normal := _normal(item)) is not None}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    return value
