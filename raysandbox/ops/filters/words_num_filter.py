"""Keeps texts by their number of words."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import words
from raysandbox.ops.tokenization import Tokenization

__all__ = ["WordsNumFilter"]


@register("words_num_filter")
class WordsNumFilter(Filter):
    """Keeps texts whose number of words lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_num": 10, "max_num": 50000}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("num_words", "min_num", "max_num", 0, integer=True),)

    lang: str = Field("en", description="language of the tokenizer's model; without effect on plain words")
    tokenization: Tokenization = Field(False, description="split by a model; not in this version")
    min_num: int | None = Field(10, description="fewest words")
    max_num: int | None = Field(sys.maxsize, description="most words")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `num_words`, the words that are left when special characters are stripped."""
        found = words(batch, lower=False)
        return {"num_words": pa.array(found.lasts - found.firsts)}
