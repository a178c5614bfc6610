"""Keeps rows by the suffix of the file that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import SUFFIX_COLUMN, Batch

__all__ = ["SuffixFilter"]


def _as_list(suffixes: Any) -> Any:
    return [suffixes] if isinstance(suffixes, str) else suffixes or []


@register("suffix_filter")
class SuffixFilter(Filter):
    """Keeps rows that come from files with given suffixes; all rows when none is given."""

    example: ClassVar[Mapping[str, Any]] = {"suffixes": [".txt", "md"]}
    reads: ClassVar[tuple[str, ...]] = ("suffix",)
    stats: ClassVar[tuple[Stat, ...]] = (Stat("suffix"),)

    suffixes: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        [], description="suffixes to keep, one or a list of them, with or without their dot"
    )

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """Which suffixes are wanted does not change them."""
        return super().thresholds() | {"suffixes"}

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `suffix`, what the reader notes in the column `__dj__suffix__`."""
        return {"suffix": batch.table.column(SUFFIX_COLUMN).combine_chunks()}

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether its suffix is wanted."""
        suffixes = stats["suffix"].to_pylist()
        if not self.suffixes:
            return np.ones(len(suffixes), bool)
        wanted = {"." + suffix.lstrip(".") for suffix in self.suffixes}
        kept = np.array([suffix in wanted for suffix in suffixes], bool)
        return ~kept if self.reversed_range else kept
