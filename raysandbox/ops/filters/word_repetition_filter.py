"""Keeps texts by how much their word n-grams repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, PositiveInt

from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.tokenization import Splitter, Tokenization, Tokenizer, load_splitter, words_of

__all__ = ["WordRepetitionFilter"]


@register("word_repetition_filter")
class WordRepetitionFilter(Filter):
    """Keeps texts whose share of repeated word n-grams lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"rep_len": 10, "max_ratio": 0.5}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("word_rep_ratio", "min_ratio", "max_ratio", 0, 1),)

    lang: str = Field("en", description="Data-Juicer's choice of a tokenizer; `tokenizer` says it here")
    tokenization: Tokenization = False
    tokenizer: Tokenizer = None
    rep_len: PositiveInt = Field(10, description="words in an n-gram")
    min_ratio: float | None = Field(0.0, description="smallest share of repeated n-grams")
    max_ratio: float | None = Field(0.5, description="largest share of repeated n-grams")

    def load(self) -> Splitter | None:
        """Loads the tokenizer, if there is one."""
        return load_splitter(self.tokenizer if self.tokenization else None)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `word_rep_ratio`, the share of n-grams of lower-case words that occur twice or more."""
        from raysandbox.ops import kernels

        found = words_of(batch, state, lower=True)
        ratios = kernels.word_ngram_repetition(
            found.codes, found.starts, found.ends, found.firsts, found.lasts, self.rep_len
        )
        return {"word_rep_ratio": pa.array(ratios)}
