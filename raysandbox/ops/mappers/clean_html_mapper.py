"""Turns HTML into plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import change_where

__all__ = ["CleanHtmlMapper"]

# What a parser of HTML takes for more than characters: tags, comments and references, and also
# carriage returns and null characters, which it changes or drops.
_MARKUP = r"<[A-Za-z/!?]|&[#A-Za-z]|[\r\x00]"
_SPACES = "\t\n\f "  # which it drops at the start


@register("clean_html_mapper")
class CleanHtmlMapper(Mapper):
    """Keeps the text of HTML: no tags, list items as lines that start with an asterisk."""

    example: ClassVar[Mapping[str, Any]] = {}

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with plain texts."""
        batch = change_where(batch, rf"\A[{_SPACES}]", lambda text: text.lstrip(_SPACES))
        return change_where(batch, _MARKUP, _plain_text)


def _plain_text(html: str) -> str:
    from selectolax.lexbor import LexborHTMLParser

    for tag in ("li", "ol"):
        html = html.replace(f"<{tag}>", "\n*").replace(f"</{tag}>", "")
    return LexborHTMLParser(html).text()
