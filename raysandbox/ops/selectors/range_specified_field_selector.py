"""Keeps rows by the rank of a field's value."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt

from raysandbox.core.errors import UserError
from raysandbox.core.registry import register
from raysandbox.ops.base import Selector
from raysandbox.ops.batch import STATS_COLUMN, Batch

__all__ = ["RangeSpecifiedFieldSelector"]

_SMALLEST = -float(sys.maxsize)  # Data-Juicer's number for what is missing
_Share = Annotated[float, Field(ge=0, le=1)]


@register("range_specified_field_selector")
class RangeSpecifiedFieldSelector(Selector):
    """Keeps the rows whose value of a field ranks within a range, smallest values first.

    Without a field, a lower or an upper bound all rows stay. Text is read as a number, a list
    counts by its mean; what is missing or no number ranks first.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "field_key": "__dj__stats__.text_len",
        "lower_percentile": 0.1,
        "upper_percentile": 0.9,
    }
    reads: ClassVar[tuple[str, ...]] = ()

    field_key: str = Field("", description="field to rank by; levels separated by dots")
    lower_percentile: _Share | None = Field(None, description="share of the rows to drop from the lower end")
    upper_percentile: _Share | None = Field(None, description="share of the rows up to which to keep")
    lower_rank: PositiveInt | None = Field(None, description="number of rows to drop; the larger bound counts")
    upper_rank: PositiveInt | None = Field(None, description="rank up to which to keep; the smaller bound counts")

    @property
    def _bounded(self) -> bool:
        lower = self.lower_percentile is not None or self.lower_rank is not None
        upper = self.upper_percentile is not None or self.upper_rank is not None
        return bool(self.field_key) and lower and upper

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the field's values as numbers (float64).

        Raises:
            UserError: a level of the field is missing.
        """
        if not self._bounded:
            return {}
        head, *levels = self.field_key.split(".")
        if head == STATS_COLUMN:
            values = self._child(batch.stats, levels[:1])
            levels = levels[1:]
        elif head in batch.table.column_names:
            values = batch.table.column(head).combine_chunks()
        else:
            raise self._missing(head, batch.table.column_names)
        for level in levels:
            if not pa.types.is_struct(values.type):
                raise self._missing(level, [])
            values = self._child({field.name: values.field(field.name) for field in values.type}, [level])
        return {"value": _numbers(values)}

    def _child(self, children: Mapping[str, pa.Array], level: list[str]) -> pa.Array:
        if not level or level[0] not in children:
            raise self._missing(".".join(level) or STATS_COLUMN, children)
        return children[level[0]]

    def _missing(self, name: str, known: Any) -> UserError:
        there = f"there are: {', '.join(known)}" if known else "it has no fields below it"
        return UserError(f"range_specified_field_selector: field_key: no '{name}' of '{self.field_key}' ({there})")

    def decide(self, features: pa.Table, num_rows: int, seed: int) -> np.ndarray:
        """Returns which rows stay; of equal values the first rows stay."""
        keep = np.ones(num_rows, bool)
        if not self._bounded or num_rows <= 1:
            return keep
        lowers = [0 if self.lower_percentile is None else int(self.lower_percentile * num_rows), self.lower_rank or 0]
        uppers = [num_rows if self.upper_percentile is None else int(self.upper_percentile * num_rows)]
        lower, upper = max(lowers), min(uppers + ([self.upper_rank] if self.upper_rank else []))
        upper = max(lower, upper)
        values = features.column("value").to_numpy()
        smallest = np.argsort(values, kind="stable")[:upper]
        largest = smallest[np.argsort(-values[smallest], kind="stable")[: upper - lower]]
        keep[:] = False
        keep[largest] = True
        return keep


def _numbers(values: pa.Array) -> pa.Array:
    """Values of any type as float64; what is missing or no number becomes `_SMALLEST`."""
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        values = pa.array([_number(value) for value in values.to_pylist()], pa.float64())
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return pa.array(np.where(np.isnan(numbers), _SMALLEST, numbers))


def _number(value: Any) -> float | None:
    if value == []:
        return None
    try:
        return float(np.mean(value)) if isinstance(value, list) else float(value)
    except (TypeError, ValueError):
        return None
