"""Keeps texts by their longest line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import line_lengths

__all__ = ["MaximumLineLengthFilter"]


@register("maximum_line_length_filter")
class MaximumLineLengthFilter(Filter):
    """Keeps texts whose longest line has a length within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_len": 10}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("max_line_length", "min_len", "max_len", 0, integer=True),)

    min_len: int | None = Field(10, description="fewest characters of the longest line")
    max_len: int | None = Field(sys.maxsize, description="most characters of the longest line")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `max_line_length`, the characters of the longest line without its break."""
        return {"max_line_length": pa.array(line_lengths(batch)[:, 1])}
