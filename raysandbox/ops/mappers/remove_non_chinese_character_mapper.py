"""Removes all characters that are not Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import replace_characters

__all__ = ["RemoveNonChineseCharacterMapper"]

_CHINESE = "\u4e00-\u9fa5"
_PUNCTUATION = ".，,。%《*》/•、&＆(—)（+）：？!！“”· \\-"


@register("remove_non_chinese_character_mapper")
class RemoveNonChineseCharacterMapper(Mapper):
    """Keeps Chinese characters and, unless told otherwise, Latin letters, digits and punctuation."""

    example: ClassVar[Mapping[str, Any]] = {"keep_alphabet": False}

    keep_alphabet: bool = Field(True, description="keep a to z and A to Z")
    keep_number: bool = Field(True, description="keep 0 to 9")
    keep_punc: bool = Field(True, description="keep spaces and common punctuation, but no line breaks")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without the other characters."""
        kept = _CHINESE + "A-Za-z" * self.keep_alphabet + "0-9" * self.keep_number + _PUNCTUATION * self.keep_punc
        return replace_characters(batch, tables.matching(f"[^{kept}]"))
