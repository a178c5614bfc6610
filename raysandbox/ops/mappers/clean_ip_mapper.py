"""Removes IP addresses."""

from __future__ import annotations

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

__all__ = ["CleanIpMapper"]

# As in Data-Juicer, addresses are also found within longer runs of digits.
_BYTE = "(?:1[0-9][0-9]|2[0-4][0-9]|25[0-5]|[1-9][0-9]|[0-9])"
_ADDRESS = regex.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}|([\da-fA-F]{{1,4}}:){{7}}[\da-fA-F]{{1,4}}")


@cache
def _classes() -> np.ndarray:
    """For `span_kernels.ip_spans`: bit 0 for the characters of addresses, bit 1 for their digits."""
    return tables.matching(r"[\da-fA-F.:]") | tables.matching(r"[\da-fA-F]") * 2


@register("clean_ip_mapper")
class CleanIpMapper(Mapper):
    """Replaces IPv4 and IPv6 addresses, by nothing unless told."""

    example: ClassVar[Mapping[str, Any]] = {"repl": "<ip>"}

    pattern: Pattern = Field(None, description="regular expression of what to replace; IP addresses by default")
    repl: str = Field("", description="what to put in its place; may refer to groups")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with the addresses replaced."""
        from raysandbox.ops import span_kernels

        if self.pattern is not None:
            return substitute(batch, compile_pattern(self.pattern), self.repl)
        points = code_points(batch)
        # A match holds no other characters and does not look around: each run can be matched alone.
        spans = span_kernels.ip_spans(points.codes, points.starts, points.ends, _classes())
        return edit(batch, spans, lambda text, _: _ADDRESS.sub(self.repl, text))
