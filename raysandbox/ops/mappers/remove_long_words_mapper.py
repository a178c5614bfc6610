"""Removes words by their length."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import keep_words, plain_words

__all__ = ["RemoveLongWordsMapper"]


@register("remove_long_words_mapper")
class RemoveLongWordsMapper(Mapper):
    """Keeps the words whose length lies within a range; runs of white space become one sign.

    A word that is too long stays if it is not without the special characters at its ends.
    """

    example: ClassVar[Mapping[str, Any]] = {"max_len": 25}

    min_len: int = Field(1, description="shortest word that stays, in characters")
    max_len: int = Field(sys.maxsize, description="longest word that stays, in characters")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without the other words."""
        from raysandbox.ops import edit_kernels

        words = plain_words(batch)
        lengths = words.ends - words.starts
        long = np.flatnonzero(lengths > self.max_len)
        starts, ends = edit_kernels.strip(words.codes, words.starts[long], words.ends[long], tables.special())
        lengths[long] = ends - starts
        return keep_words(batch, words, (self.min_len <= lengths) & (lengths <= self.max_len))
