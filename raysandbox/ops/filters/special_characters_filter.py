"""Keeps texts by their share of special characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import share_in

__all__ = ["SpecialCharactersFilter"]


@register("special_characters_filter")
class SpecialCharactersFilter(Filter):
    """Keeps texts whose share of punctuation, digits, spaces, symbols and emoji lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"max_ratio": 0.4}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("special_char_ratio", "min_ratio", "max_ratio", 0, 1),)

    min_ratio: float | None = Field(0.0, description="smallest share of special characters")
    max_ratio: float | None = Field(0.25, description="largest share of special characters")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `special_char_ratio`, special characters by characters; 0 for an empty text."""
        return {"special_char_ratio": share_in(batch, tables.special())}
