"""Removes given characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import replace_characters

__all__ = ["RemoveSpecificCharsMapper"]


@register("remove_specific_chars_mapper")
class RemoveSpecificCharsMapper(Mapper):
    """Removes some characters wherever they stand; by default signs that mark list items."""

    example: ClassVar[Mapping[str, Any]] = {"chars_to_remove": "◆●■"}

    chars_to_remove: str | list[str] = Field("◆●■►▼▲▴∆▻▷❖♡□", description="the characters, in one string or several")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without the characters."""
        return replace_characters(batch, tables.members("".join(self.chars_to_remove)))
