"""Removes tables from texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import code_points, leave_out

__all__ = ["RemoveTableTextMapper"]


@register("remove_table_text_mapper")
class RemoveTableTextMapper(Mapper):
    """Removes runs of lines with the same number of columns, which a space, tab or bar separates.

    The first line of a text, and a last line that no newline ends, are never part of a table.
    """

    example: ClassVar[Mapping[str, Any]] = {"min_col": 3}

    min_col: int = Field(2, ge=2, le=20, description="fewest columns of a table")
    max_col: int = Field(20, ge=2, le=20, description="most columns of a table")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without tables."""
        from raysandbox.ops import line_kernels

        points = code_points(batch)
        spans = line_kernels.table_lines(
            points.codes, points.starts, points.ends, tables.matching(r"\s"), self.min_col - 1, self.max_col - 1
        )
        return leave_out(batch, spans)
