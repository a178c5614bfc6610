"""Removes links."""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import regex
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import Pattern, compile_pattern, substitute
from raysandbox.ops.text import code_points, edit

__all__ = ["CleanLinksMapper"]

# Matches what Data-Juicer's pattern matches, without its repetitions of repetitions, and without going
# back over what was read: a colon ends a scheme, the last dot before a slash ends a host's name, and a
# name is tried from where it starts only.
_NESTED = r"\((?:[^\s()<>]|\([^\s()<>]+\))*\)"
_LINK = regex.compile(
    r"(?i)\b"
    r"((?:[a-z][\w-]++:(?:/{1,3}|[a-z0-9%])|www\d{0,3}[.]|"
    r"(?<!\b[a-z0-9]+|\b[.\-]+)[a-z0-9.\-](?:[a-z0-9\-]*+[.])++[a-z]{2,4}/)"
    rf"(?:[^\s()<>]|{_NESTED})+"
    rf"(?:{_NESTED}|[^\s`!()\[\]{{}};:'\".,<>?«»“”‘’]))"
)


# What `regex` understands by \s and, without regard to case, by [a-z].
_SPACES = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_LETTERS = string.ascii_letters + "\u0130\u017f\u212a"


@cache
def _classes() -> np.ndarray:
    """For `span_kernels.link_spans`: bit 0 for characters that no link holds, bit 1 for `:` and `.`."""
    return tables.members(_SPACES + "<>") | tables.members(":.") * 2


@cache
def _letters() -> np.ndarray:
    """For `span_kernels.link_spans`, as it says; any code point beyond ASCII may be one of `regex`'s digits."""
    table = tables.members(_LETTERS) | tables.members(string.digits) * 2 | tables.members(string.digits + "%") * 4
    table[0x80:] |= 2
    return table


@register("clean_links_mapper")
class CleanLinksMapper(Mapper):
    """Replaces links (http, https, ftp, www …), by nothing unless told."""

    example: ClassVar[Mapping[str, Any]] = {"repl": "<link>"}

    pattern: Pattern = Field(None, description="regular expression of what to replace; links by default")
    repl: str = Field("", description="what to put in its place; may refer to groups")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with the links replaced."""
        from raysandbox.ops import span_kernels

        if self.pattern is not None:
            return substitute(batch, compile_pattern(self.pattern), self.repl)
        points = code_points(batch)
        spans = span_kernels.link_spans(points.codes, points.starts, points.ends, _classes(), _letters())
        return edit(batch, spans, lambda text, _: _LINK.sub(self.repl, text))
