"""Replaces all kinds of white space by spaces."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import CodePoints, code_points, with_points

__all__ = ["WhitespaceNormalizationMapper"]

# https://en.wikipedia.org/wiki/Whitespace_character without the line breaks, and U+0084 and U+FFFC.
_SPACES = (
    "\t\x84\xa0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d"
    "\u202f\u205f\u2060\u3000\ufffc"
)


@register("whitespace_normalization_mapper")
class WhitespaceNormalizationMapper(Mapper):
    """Trims texts and turns tabs and Unicode's other spaces into plain spaces; line breaks stay."""

    example: ClassVar[Mapping[str, Any]] = {}

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with normalised texts."""
        from raysandbox.ops import edit_kernels, kernels

        points = code_points(batch)
        has_others = kernels.any_in(points.codes, points.starts, points.ends, tables.members(_SPACES))
        starts, ends = edit_kernels.strip(points.codes, points.starts, points.ends, tables.whitespace())
        codes = kernels.translate(points.codes, _plain_spaces())
        changes = has_others | (starts != points.starts) | (ends != points.ends)
        return with_points(batch, CodePoints(codes, starts, ends), np.flatnonzero(changes))


@cache
def _plain_spaces() -> np.ndarray:
    """Every code point (uint32), the other spaces as plain ones."""
    table = np.arange(tables.CODE_POINTS, dtype=np.uint32)
    table[[ord(space) for space in _SPACES]] = ord(" ")
    return table
