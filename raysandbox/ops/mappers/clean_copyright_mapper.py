"""Removes copyright notices at the start of source code."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import dropwhile
from typing import Any, ClassVar

import regex

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import change_where

__all__ = ["CleanCopyrightMapper"]

_COPYRIGHT = regex.compile("copyright", regex.IGNORECASE)
_LINE_COMMENTS = ("//", "#", "--")


@register("clean_copyright_mapper")
class CleanCopyrightMapper(Mapper):
    """Removes the first /* */ comment if it speaks of copyright; without one, comment lines at the start."""

    example: ClassVar[Mapping[str, Any]] = {}

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without copyright notices."""
        return change_where(batch, r"/\*|\A(?://|#|--|\n)", _without_notice)


def _without_notice(text: str) -> str:
    start = text.find("/*")
    end = text.find("*/", start + 2) if start >= 0 else -1
    if end >= 0:
        end += 2
        return text[:start] + text[end:] if _COPYRIGHT.search(text[start:end]) else text
    lines = text.split("\n")
    return "\n".join(dropwhile(lambda line: not line or line.startswith(_LINE_COMMENTS), lines))
