"""Keeps texts by their share of stop words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from raysandbox.core.component import InputPath
from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.word_lists import Listed, WordListFilter, read_word_lists

__all__ = ["StopwordsFilter"]


@register("stopwords_filter")
class StopwordsFilter(WordListFilter):
    """Keeps texts whose share of stop words lies within a range."""

    example: ClassVar[Mapping[str, Any]] = {"lang": "en", "min_ratio": 0.3}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("stopwords_ratio", "min_ratio", "max_ratio", 0, 1),)

    min_ratio: float | None = Field(0.3, description="smallest share of stop words")
    max_ratio: float | None = Field(1.0, description="largest share of stop words")
    stopwords_dir: InputPath | None = Field(
        None,
        validate_default=True,
        description="JSON file {language: [word, …]}, or folder of such with stopwords in their names; "
        "by default the lists of the package stopwordsiso",
    )

    @field_validator("stopwords_dir")
    @classmethod
    def _has_the_language(cls, path: str | None, info: ValidationInfo) -> str | None:
        import stopwordsiso

        lang = info.data.get("lang")
        if path is None and lang not in {*stopwordsiso.langs(), "all"}:
            raise ValueError(f"is required: the package stopwordsiso has no list of the language '{lang}'")
        return path

    def load(self) -> Listed:
        """Loads the list and the tokenizer."""
        if self.stopwords_dir is not None:
            return self.listed(read_word_lists(self.stopwords_dir, "stopwords"), self.stopwords_dir)
        import stopwordsiso

        lists = {language: stopwordsiso.stopwords(language) for language in stopwordsiso.langs()}
        return self.listed(lists, "the package stopwordsiso")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `stopwords_ratio`, listed words by words."""
        return {"stopwords_ratio": self.shares(batch, state)}
