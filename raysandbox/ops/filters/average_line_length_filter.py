"""Keeps texts by their average line."""

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
from raysandbox.ops.text import code_points, line_lengths

__all__ = ["AverageLineLengthFilter"]


@register("average_line_length_filter")
class AverageLineLengthFilter(Filter):
    """Keeps texts whose number of characters per line lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_len": 10}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("avg_line_length", "min_len", "max_len", 0),)

    min_len: int | None = Field(10, description="fewest characters of the average line")
    max_len: int | None = Field(sys.maxsize, description="most characters of the average line")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `avg_line_length`, the text's length, line breaks included, by its number of lines."""
        lines = line_lengths(batch)[:, 0]
        return {"avg_line_length": pa.array(code_points(batch).lengths / np.maximum(lines, 1))}
