"""Keeps texts by their share of flagged words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from raysandbox.core.component import InputPath
from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.word_lists import Listed, WordListFilter, read_word_lists

__all__ = ["FlaggedWordsFilter"]


@register("flagged_words_filter")
class FlaggedWordsFilter(WordListFilter):
    """Keeps texts whose share of flagged words, such as swear words, lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"flagged_words_dir": "word_lists/flagged_words.json", "max_ratio": 0.045}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("flagged_words_ratio", "min_ratio", "max_ratio", 0, 1),)

    min_ratio: float | None = Field(0.0, description="smallest share of flagged words")
    max_ratio: float | None = Field(0.045, description="largest share of flagged words")
    flagged_words_dir: InputPath = Field(
        "",
        validate_default=True,
        description="JSON file {language: [word, …]}, or folder of such with flagged_words in their names; required",
    )

    @field_validator("flagged_words_dir")
    @classmethod
    def _given(cls, path: str) -> str:
        if not path:
            raise ValueError("is required: no list comes with raysandbox; give a JSON file {language: [word, …]}")
        return path

    def load(self) -> Listed:
        """Loads the list and the tokenizer."""
        return self.listed(read_word_lists(self.flagged_words_dir, "flagged_words"), self.flagged_words_dir)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `flagged_words_ratio`, listed words by words."""
        return {"flagged_words_ratio": self.shares(batch, state)}
