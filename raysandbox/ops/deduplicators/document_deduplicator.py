"""Drops texts that occurred before."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import regex
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Deduplicator
from raysandbox.ops.batch import Batch

__all__ = ["DocumentDeduplicator"]

_HASH = "__dj__hash"
_NON_CHARACTERS = regex.compile(rf"[\s\d{regex.escape(string.punctuation)}]+")


@register("document_deduplicator")
class DocumentDeduplicator(Deduplicator):
    """Keeps the first of texts that are equal but for white space at their ends."""

    example: ClassVar[Mapping[str, Any]] = {"lowercase": True, "ignore_non_character": True}

    lowercase: bool = Field(False, description="compare in lower case")
    ignore_non_character: bool = Field(False, description="compare without white space, digits and punctuation")

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the MD5 of each text (16 bytes)."""
        return {_HASH: pa.array([self._hash(text) for text in batch.texts], pa.binary(16))}

    def _hash(self, text: str) -> bytes:
        if self.lowercase:
            text = text.lower()
        if self.ignore_non_character:
            text = _NON_CHARACTERS.sub("", text)
        return hashlib.md5(text.strip().encode(), usedforsecurity=False).digest()

    def decide(self, features: pa.Table, num_rows: int, seed: int) -> np.ndarray:
        """Returns which rows are the first with their hash."""
        keep = np.zeros(num_rows, bool)
        if num_rows:
            content = b"".join(features.column(_HASH).to_pylist())
            halves = np.frombuffer(content, np.uint64).reshape(num_rows, 2)
            order = np.lexsort((halves[:, 0], halves[:, 1]))  # stable: the first row leads its group
            ordered = halves[order]
            leads = np.concatenate(([True], (ordered[1:] != ordered[:-1]).any(axis=1)))
            keep[order[leads]] = True
        return keep
