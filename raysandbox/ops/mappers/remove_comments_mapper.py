"""Removes comments from LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import regex
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import change_where

__all__ = ["RemoveCommentsMapper"]

_TAIL = regex.compile(r"[^\\]%.+$", regex.MULTILINE)
_LINE = regex.compile(r"^%.*\n?", regex.MULTILINE)


@register("remove_comments_mapper")
class RemoveCommentsMapper(Mapper):
    """Removes the comments of LaTeX sources, from a percent sign to the end of the line.

    As in Data-Juicer, the character before a comment goes as well: a space, or the newline before.
    """

    example: ClassVar[Mapping[str, Any]] = {}
    no_meaning_here: ClassVar[frozenset[str]] = Mapper.no_meaning_here | {"doc_type"}

    doc_type: str | list[str] = Field("tex", description="kind of document; only LaTeX is known")
    inline: bool = Field(True, description="remove comments that follow something")
    multiline: bool = Field(True, description="remove lines that are comments")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without comments."""
        return change_where(batch, "%", self._without_comments)

    def _without_comments(self, text: str) -> str:
        if self.inline:
            text = _TAIL.sub("", text)
        return _LINE.sub("", text) if self.multiline else text
