"""Equal texts and media: what the exact deduplicators share."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import regex
from pydantic import Field

from raysandbox.ops import tables
from raysandbox.ops.base import Deduplicator
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import replace_characters

__all__ = ["TEXT_HASH", "ExactDeduplicator", "MediaDeduplicator", "originals_of_equal"]

TEXT_HASH = "__dj__hash"
_NON_CHARACTERS = rf"[\s\d{regex.escape(string.punctuation)}]"


class ExactDeduplicator(Deduplicator):
    """Compares hashes, texts without the white space at their ends."""

    # Of the operators for Data-Juicer's Ray executor, which are the same here.
    no_meaning_here: ClassVar[frozenset[str]] = Deduplicator.no_meaning_here | {
        "backend",
        "dedup_set_num",
        "redis_address",
    }

    lowercase: bool = Field(False, description="compare texts in lower case")
    ignore_non_character: bool = Field(False, description="compare texts without white space, digits and punctuation")

    def text_hashes(self, batch: Batch) -> pa.Array:
        """The MD5 of each text (16 bytes)."""
        texts = [text.lower() for text in batch.texts] if self.lowercase else batch.texts
        if self.ignore_non_character:
            texts = replace_characters(batch.with_texts(texts), tables.matching(_NON_CHARACTERS)).texts
        hashes = [hashlib.md5(text.strip().encode(), usedforsecurity=False).digest() for text in texts]
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(hashes), [None, pa.py_buffer(b"".join(hashes))])


class MediaDeduplicator(ExactDeduplicator):
    """Compares the media of rows, all together in order; rows without any stay.

    Class attributes:
        hash_column: name of the column of hashes.
    """

    extras: ClassVar[tuple[str, ...]] = ("media",)
    hash_column: ClassVar[str]

    consider_text: bool = Field(
        False, description="rows are equal only if their texts are too; then rows without media are compared as well"
    )

    def media_hashes(self, batch: Batch) -> Sequence[str]:
        """Returns a hash of each row's media, "" for rows without."""
        raise NotImplementedError

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the hash of each row's media and, where it counts, of its text."""
        columns = {self.hash_column: pa.array(self.media_hashes(batch), pa.string())}
        return {**columns, TEXT_HASH: self.text_hashes(batch)} if self.consider_text else columns

    def originals(self, features: pa.Table, num_rows: int) -> np.ndarray:
        """Returns the first row with the hashes of each; a row that has none is its own."""
        found = originals_of_equal(features, num_rows)
        if num_rows and not self.consider_text:
            hashes = features.column(self.hash_column).to_numpy()
            found = np.where(hashes == "", np.arange(num_rows), found)
        return found


def originals_of_equal(features: pa.Table, num_rows: int) -> np.ndarray:
    """Tells for each row the first (int64) with its values in all columns."""
    numbers = np.zeros(num_rows, np.int64)
    for column in features.columns:
        encoded = column.dictionary_encode().combine_chunks()
        numbers = numbers * len(encoded.dictionary) + encoded.indices.to_numpy()
    _, firsts, places = np.unique(numbers, return_index=True, return_inverse=True)
    return firsts[places]
