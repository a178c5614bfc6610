"""Keeps rows by a condition on their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import STATS_COLUMN, Batch, RowFaults
from raysandbox.ops.expressions import Condition, names_in, parse_condition
from raysandbox.ops.fields import field_list

__all__ = ["GeneralFieldFilter"]

_STAT = "general_field_filter_condition"


def _check(condition: str) -> str:
    if condition.strip():
        parse_condition(condition)
    return condition


@register("general_field_filter")
class GeneralFieldFilter(Filter):
    """Keeps rows for which a condition holds; all rows when it is empty."""

    example: ClassVar[Mapping[str, Any]] = {"filter_condition": "10 < num <= 30 and __dj__meta__.source != 'web'"}
    reads: ClassVar[tuple[str, ...]] = ("stats",)
    stats: ClassVar[tuple[Stat, ...]] = (Stat(_STAT),)

    filter_condition: Annotated[str, AfterValidator(_check)] = Field(
        "",
        description="comparisons of fields and constants, joined by and, or, not; levels of a field after dots",
    )

    def load(self) -> Condition | None:
        """Parses the condition."""
        return parse_condition(self.filter_condition) if self.filter_condition.strip() else None

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `general_field_filter_condition`, whether the condition holds.

        Raises:
            RowFaults: the values of some rows cannot be compared.
        """
        if state is None:
            return {_STAT: pa.array(np.ones(batch.num_rows, bool))}
        columns = {name: _values(batch, name) for name in names_in(self.filter_condition)}
        verdicts, faults = [], {}
        for row in range(batch.num_rows):
            try:
                verdicts.append(bool(state({name: values[row] for name, values in columns.items()})))
            except TypeError as error:
                faults[row] = str(error)
        if faults:
            raise RowFaults(faults)
        return {_STAT: pa.array(verdicts, pa.bool_())}

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether the condition holds."""
        return stats[_STAT].to_numpy(zero_copy_only=False)


def _values(batch: Batch, name: str) -> list[Any]:
    if name == STATS_COLUMN:
        return pa.table(dict(batch.stats)).to_pylist() if batch.stats else [{}] * batch.num_rows
    return field_list(batch, name)
