"""Replaces Unicode's punctuation by that of English."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import replace_characters

__all__ = ["PunctuationNormalizationMapper"]

# The full-width digit one among the quotes is Data-Juicer's.
_SIGNS = {
    '"': "„”“«»１」「《》",
    "'": "´’",
    ",": "，、",
    ".": "。",
    ". ": "．",
    "...": "…",
    ":": "∶：",
    ";": "；",
    "?": "？",
    "!": "！",
    "(": "（",
    ")": "）",
    "[": "【",
    "]": "】",
    "<": "〈",
    ">": "〉",
    "-": "–━►",
    " - ": "—",
    "~": "～",
    "%": "％",
}


@cache
def _table() -> np.ndarray:
    """For each code point the number of its replacement among the keys of `_SIGNS`, from 1; 0 for none."""
    table = np.zeros(tables.CODE_POINTS, np.uint8)
    for number, signs in enumerate(_SIGNS.values(), 1):
        table[[ord(sign) for sign in signs]] = number
    return table


@register("punctuation_normalization_mapper")
class PunctuationNormalizationMapper(Mapper):
    """Replaces Chinese and typographic punctuation by ASCII punctuation."""

    example: ClassVar[Mapping[str, Any]] = {}

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with plain punctuation."""
        return replace_characters(batch, _table(), tuple(_SIGNS))
