"""Keeps rows by chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt

from raysandbox.core.registry import register
from raysandbox.ops.base import Selector
from raysandbox.ops.batch import Batch

__all__ = ["RandomSelector"]


@register("random_selector")
class RandomSelector(Selector):
    """Keeps a random share or number of rows, the smaller of both; all rows when neither is given."""

    example: ClassVar[Mapping[str, Any]] = {"select_ratio": 0.5}
    reads: ClassVar[tuple[str, ...]] = ()

    select_ratio: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="share of rows to keep")
    select_num: PositiveInt | None = Field(None, description="number of rows to keep")

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns nothing: the choice does not look at the rows."""
        return {}

    def decide(self, features: pa.Table, num_rows: int, seed: int) -> np.ndarray:
        """Returns which rows stay; depends on the number of rows and the seed only."""
        counts = [num_rows]
        if self.select_ratio is not None:
            counts.append(int(self.select_ratio * num_rows))
        if self.select_num is not None:
            counts.append(self.select_num)
        keep = np.zeros(num_rows, bool)
        if num_rows == 1:
            return ~keep  # as in Data-Juicer, a single row is never selected away
        keep[np.random.default_rng(seed).permutation(num_rows)[: min(counts)]] = True
        return keep
