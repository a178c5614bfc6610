"""Removes the bibliography of LaTeX documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import regex

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import change_where

__all__ = ["RemoveBibliographyMapper"]

_SIGN = r"\\(?:appendix|begin\{(?:references|REFERENCES|thebibliography)\}|bibliography\{)"
_START = regex.compile(_SIGN)


@register("remove_bibliography_mapper")
class RemoveBibliographyMapper(Mapper):
    """Cuts LaTeX documents off where the appendix or the bibliography starts."""

    example: ClassVar[Mapping[str, Any]] = {}

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with shorter texts."""
        return change_where(batch, _SIGN, _cut)


def _cut(text: str) -> str:
    last_brace = text.rfind("}")
    for match in _START.finditer(text):
        if not match[0].endswith("bibliography{") or match.end() <= last_brace:
            return text[: match.start()]
    return text
