"""Selectors that decide by a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt

from raysandbox.core.errors import UserError
from raysandbox.ops.base import Selector
from raysandbox.ops.batch import Batch

__all__ = ["FieldSelector", "Share", "TopSelector"]

Share = Annotated[float, Field(ge=0, le=1)]


class FieldSelector(Selector):
    """Decides by one field of each row; keeps all rows when it is told nothing to decide by."""

    reads: ClassVar[tuple[str, ...]] = ()

    field_key: str = Field("", description="field to decide by; levels separated by dots")

    def selects(self) -> bool:
        """Whether the configuration asks for a selection."""
        raise NotImplementedError

    def values(self, batch: Batch) -> pa.Array:
        """What is needed of each row's field; null where it is missing."""
        raise NotImplementedError

    def select(self, values: pa.Array) -> np.ndarray:
        """Returns which rows stay, of two or more, from the values of all rows in input order."""
        raise NotImplementedError

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `value`, or nothing where all rows stay."""
        return {"value": self.values(batch)} if self.selects() else {}

    def decide(self, features: pa.Table, num_rows: int, seed: int) -> np.ndarray:
        """Returns which rows stay.

        Raises:
            UserError: no row has the field.
        """
        if not self.selects() or num_rows <= 1:
            return np.ones(num_rows, bool)
        values = features.column("value").combine_chunks()
        if values.null_count == num_rows:
            raise UserError(f"{self.type_name}: field_key: no row has a value of '{self.field_key}' to decide by")
        return self.select(values)


class TopSelector(FieldSelector):
    """Keeps the first so many of what is ranked."""

    top_ratio: Share | None = Field(None, description="share to keep")
    topk: PositiveInt | None = Field(None, description="number to keep; of both bounds the smaller counts")
    reverse: bool = Field(True, description="largest first; else smallest first")

    def selects(self) -> bool:
        """Whether there is a field and a bound."""
        return bool(self.field_key) and (self.top_ratio is not None or self.topk is not None)

    def count(self, available: int) -> int:
        """How many of `available` to keep."""
        bounds = [available if self.top_ratio is None else int(self.top_ratio * available), self.topk or available]
        return min(bounds)
