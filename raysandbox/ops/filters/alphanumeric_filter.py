"""Keeps texts by their share of letters and digits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import share_in
from raysandbox.ops.tokenization import Tokenization

__all__ = ["AlphanumericFilter"]


@register("alphanumeric_filter")
class AlphanumericFilter(Filter):
    """Keeps texts whose share of letters and digits lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_ratio": 0.25}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("alnum_ratio", "min_ratio", "max_ratio", 0, 1),)

    tokenization: Tokenization = Field(False, description="count by tokens of a model; not in this version")
    min_ratio: float | None = Field(0.25, description="smallest share of letters and digits")
    max_ratio: float | None = Field(sys.maxsize, description="largest share of letters and digits")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `alnum_ratio`, letters and digits by characters; 0 for an empty text."""
        return {"alnum_ratio": share_in(batch, tables.alphabetic_or_numeric())}
