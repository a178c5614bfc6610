"""Keeps texts by how much their character n-grams repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, PositiveInt

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import code_points

__all__ = ["CharacterRepetitionFilter"]


@register("character_repetition_filter")
class CharacterRepetitionFilter(Filter):
    """Keeps texts whose share of repeated character n-grams lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"rep_len": 10, "max_ratio": 0.5}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("char_rep_ratio", "min_ratio", "max_ratio", 0, 1),)

    rep_len: PositiveInt = Field(10, description="characters in an n-gram")
    min_ratio: float | None = Field(0.0, description="smallest share of repeated n-grams")
    max_ratio: float | None = Field(0.5, description="largest share of repeated n-grams")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `char_rep_ratio`: of D distinct n-grams, the share of the sqrt(D) most repeated."""
        from raysandbox.ops import kernels

        points = code_points(batch)
        ratios = kernels.char_ngram_repetition(points.codes, points.starts, points.ends, self.rep_len)
        return {"char_rep_ratio": pa.array(ratios)}
