"""Keeps texts by their length."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import code_points

__all__ = ["TextLengthFilter"]


@register("text_length_filter")
class TextLengthFilter(Filter):
    """Keeps texts whose number of characters lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_len": 50, "max_len": 200000}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("text_len", "min_len", "max_len", 0, integer=True),)

    min_len: int | None = Field(10, description="fewest characters")
    max_len: int | None = Field(sys.maxsize, description="most characters")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `text_len`, the number of code points."""
        return {"text_len": pa.array(code_points(batch).lengths)}
