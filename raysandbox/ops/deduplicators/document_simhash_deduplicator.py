"""Drops texts that are nearly equal to an earlier one, by SimHash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raysandbox.core.registry import register
from raysandbox.ops.batch import Batch
from raysandbox.ops.shingles import ShingleDeduplicator

__all__ = ["DocumentSimhashDeduplicator"]

_HASH = "__dj__simhash"


@register("document_simhash_deduplicator")
class DocumentSimhashDeduplicator(ShingleDeduplicator):
    """Keeps the first of texts that are alike: whose 64-bit SimHash values differ in few bits."""

    example: ClassVar[Mapping[str, Any]] = {"tokenization": "character", "window_size": 4}

    tokenization: Literal["space", "punctuation", "character"] = Field(
        "space", description="what tokens are: words between spaces, text between punctuation, characters"
    )
    window_size: int = Field(6, ge=1, description="tokens in a shingle; texts with fewer count as equal")
    num_blocks: int = Field(
        6, ge=1, le=64, description="parts that the bits are cut into for the search: affects time, not the result"
    )
    hamming_distance: int = Field(4, ge=1, description="most bits in which alike texts differ; below num_blocks")

    @model_validator(mode="after")
    def _searchable(self) -> DocumentSimhashDeduplicator:
        if self.hamming_distance >= self.num_blocks:
            raise ValueError("hamming_distance should be below num_blocks")
        return self

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the SimHash of each text (uint64)."""
        from raysandbox.ops.shingle_kernels import simhashes

        return {_HASH: pa.array(simhashes(*self.tokens(batch, self.tokenization)))}

    def originals(self, features: pa.Table, num_rows: int) -> np.ndarray:
        """Returns the first row of each row's group: rows that are alike, directly or through others."""
        from raysandbox.ops.union_find import originals_of_near

        if num_rows == 0:
            return np.zeros(0, np.int64)
        return originals_of_near(features.column(_HASH).to_numpy(), self.num_blocks, self.hamming_distance)
