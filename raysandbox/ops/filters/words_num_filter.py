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
from raysandbox.ops.tokenization import Splitter, Tokenization, Tokenizer, load_splitter, words_of

__all__ = ["WordsNumFilter"]


@register("words_num_filter")
class WordsNumFilter(Filter):
    """Keeps texts whose number of words lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_num": 10, "max_num": 50000}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("num_words", "min_num", "max_num", 0, integer=True),)

    lang: str = Field("en", description="Data-Juicer's choice of a tokenizer; `tokenizer` says it here")
    tokenization: Tokenization = False
    tokenizer: Tokenizer = None
    min_num: int | None = Field(10, description="fewest words")
    max_num: int | None = Field(sys.maxsize, description="most words")

    def load(self) -> Splitter | None:
        """Loads the tokenizer, if there is one."""
        return load_splitter(self.tokenizer if self.tokenization else None)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `num_words`, the words that are left when special characters are stripped."""
        found = words_of(batch, state, lower=False)
        return {"num_words": pa.array(found.lasts - found.firsts)}
