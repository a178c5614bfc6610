"""Removes e-mail addresses."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any, ClassVar

import regex
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import Pattern, compile_pattern, substitute
from raysandbox.ops.text import code_points, edit

__all__ = ["CleanEmailMapper"]

_ADDRESS = regex.compile(r"[A-Za-z0-9.\-+_]+@[a-z0-9.\-+_]+\.[a-z]+")
_INSIDE = string.ascii_letters + string.digits + ".-+_@"


@register("clean_email_mapper")
class CleanEmailMapper(Mapper):
    """Replaces e-mail addresses, by nothing unless told."""

    example: ClassVar[Mapping[str, Any]] = {"repl": "<email>"}

    pattern: Pattern = Field(None, description="regular expression of what to replace; e-mail addresses by default")
    repl: str = Field("", description="what to put in its place; may refer to groups")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with the addresses replaced."""
        from raysandbox.ops import span_kernels

        if self.pattern is not None:
            return substitute(batch, compile_pattern(self.pattern), self.repl)
        points = code_points(batch)
        # A match holds no other characters and does not look around: each run can be matched alone.
        spans = span_kernels.email_spans(points.codes, points.starts, points.ends, tables.members(_INSIDE))
        return edit(batch, spans, lambda text, _: _ADDRESS.sub(self.repl, text))
