"""Drops texts that occurred before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raysandbox.core.registry import register
from raysandbox.ops.batch import Batch
from raysandbox.ops.exact import TEXT_HASH, ExactDeduplicator, originals_of_equal

__all__ = ["DocumentDeduplicator"]


@register("document_deduplicator")
class DocumentDeduplicator(ExactDeduplicator):
    """Keeps the first of texts that are equal but for white space at their ends."""

    example: ClassVar[Mapping[str, Any]] = {"lowercase": True, "ignore_non_character": True}

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the MD5 of each text (16 bytes)."""
        return {TEXT_HASH: self.text_hashes(batch)}

    def originals(self, features: pa.Table, num_rows: int) -> np.ndarray:
        """Returns the first row with the hash of each."""
        return originals_of_equal(features, num_rows)
