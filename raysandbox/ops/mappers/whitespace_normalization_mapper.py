"""Replaces all kinds of white space by spaces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import code_points, replace_rows

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
        from raysandbox.ops import kernels

        points = code_points(batch)
        changes = kernels.any_in(points.codes, points.starts, points.ends, tables.members(_SPACES))
        filled = np.flatnonzero(points.lengths)
        spaces = tables.whitespace()
        ends = np.stack((points.codes[points.starts[filled]], points.codes[points.ends[filled] - 1]))
        changes[filled] |= spaces[ends].any(axis=0)
        rows = np.flatnonzero(changes).tolist()
        pattern = re.compile(f"[{_SPACES}]")
        return replace_rows(batch, rows, [pattern.sub(" ", points.text(row).strip()) for row in rows])
