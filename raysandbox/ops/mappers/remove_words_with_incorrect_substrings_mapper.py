"""Removes words that hold certain strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import keep_words, plain_words
from raysandbox.ops.tokenization import Tokenization

__all__ = ["RemoveWordsWithIncorrectSubstringsMapper"]

_LINK_PARTS = ("http", "www", ".com", "href", "//")


@register("remove_words_with_incorrect_substrings_mapper")
class RemoveWordsWithIncorrectSubstringsMapper(Mapper):
    """Removes the words that hold one of some strings; runs of white space become one sign.

    Special characters at the ends of a word do not count.
    """

    example: ClassVar[Mapping[str, Any]] = {"substrings": ["http", "www"]}

    lang: str = Field("en", description="language of the tokenizer's model; without effect on plain words")
    tokenization: Tokenization = Field(False, description="split by a model; not in this version")
    substrings: list[str] | None = Field(
        None, description="what no word may hold; by default http, www, .com, href and //"
    )

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without those words."""
        from raysandbox.ops import word_kernels

        substrings = _LINK_PARTS if self.substrings is None else self.substrings
        patterns = np.frombuffer("".join(substrings).encode("utf-32-le"), np.uint32)
        bounds = np.cumsum([0, *map(len, substrings)])
        words = plain_words(batch)
        starts, ends = word_kernels.strip(words.codes, words.starts, words.ends, tables.special())
        return keep_words(batch, words, ~word_kernels.hold_any(words.codes, starts, ends, patterns, bounds))
