"""Mends mojibake, entities, ligatures, widths, quotes and control characters with ftfy."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import CodePoints, code_points, edit

__all__ = ["FixUnicodeMapper"]

Form = Literal["NFC", "NFKC", "NFD", "NFKD"]

# Signs of ftfy.badness.BADNESS_RE that count without a neighbour of its categories: before a space
# (Â, Ã), before anything but a letter (Œ, œ), or between Cyrillic letters (Ђ).
_SUSPECT = "ÂÃŒœЂ"
# Signs of weak categories that some of its rules pair with other weak signs.
_STRONG = "°Ù"
_MAX_SEGMENT = 1_000_000  # ftfy's max_decode_length


@register("fix_unicode_mapper")
class FixUnicodeMapper(Mapper):
    """Fixes broken Unicode and normalises texts.

    The result is that of `ftfy.fix_text`. ftfy fixes each line by itself; most lines hold nothing
    that it could change, and most of the others only quotes, full-width forms or control characters
    that it replaces one by one. Both are decided on code points; ftfy gets the rest.
    """

    example: ClassVar[Mapping[str, Any]] = {"normalization": "NFC"}

    normalization: Form | None = Field(None, description="Unicode normal form: NFC (default), NFKC, NFD or NFKD")

    @field_validator("normalization", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return (value.upper() or None) if isinstance(value, str) else value

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with fixed texts."""
        from raysandbox.ops import span_kernels

        form: Form = self.normalization or "NFC"
        points = code_points(batch)
        spans = span_kernels.suspect_segments(points.codes, points.starts, points.ends, _classes(form), _MAX_SEGMENT)
        reasons = _settle(points, spans, form)
        spans, reasons = spans[reasons & ~span_kernels.MARKUP != 0], reasons[reasons & ~span_kernels.MARKUP != 0]
        rewritten = CodePoints(*span_kernels.rewrite(points.codes, spans, _replacements()))
        replaced = rewritten.slices(rewritten.starts, rewritten.ends)
        simple = (reasons & ~span_kernels.MARKUP == span_kernels.SIMPLE) & ~_unfinished(rewritten, form)

        def fix(text: str, index: int) -> str:
            if simple[index]:
                return replaced[index]
            return _fix_segment(text, form, entities=not reasons[index] & span_kernels.MARKUP)

        return edit(batch, spans, fix)


def _fix_segment(text: str, form: Form, *, entities: bool) -> str:
    import ftfy

    config = ftfy.TextFixerConfig(unescape_html="auto" if entities else False, normalization=form, explain=False)
    return ftfy.fix_text_segment(text, config)


def _settle(points: CodePoints, spans: np.ndarray, form: Form) -> np.ndarray:
    """Asks ftfy's own tests about segments; returns the reasons that are left (int64)."""
    from ftfy.badness import is_bad
    from ftfy.chardata import HTML_ENTITY_RE

    from raysandbox.ops import span_kernels

    reasons = spans[:, 3].copy()
    for index in np.flatnonzero(
        reasons & (span_kernels.SUSPECT | span_kernels.COMPOSES | span_kernels.ENTITY)
    ).tolist():
        _, start, end, reason = spans[index].tolist()
        text = points.slice(start, end)
        if reason & span_kernels.SUSPECT and not is_bad(text):
            reasons[index] &= ~span_kernels.SUSPECT
        if reason & span_kernels.ENTITY and not HTML_ENTITY_RE.search(text):
            reasons[index] &= ~span_kernels.ENTITY
        if reason & span_kernels.COMPOSES and unicodedata.is_normalized(form, text):
            reasons[index] &= ~span_kernels.COMPOSES
    return reasons


def _unfinished(rewritten: CodePoints, form: Form) -> np.ndarray:
    """Which rewritten segments ftfy would change in its second round."""
    from raysandbox.ops import span_kernels

    # ftfy decides on entities by the original text, not by signs that a replacement made.
    classes = _classes(form).copy()
    classes[ord("<")] = 0
    spans = span_kernels.suspect_segments(rewritten.codes, rewritten.starts, rewritten.ends, classes, _MAX_SEGMENT)
    unfinished = np.zeros(rewritten.starts.size, bool)
    unfinished[spans[_settle(rewritten, spans, form) != 0, 0]] = True
    return unfinished


@cache
def _replacements() -> np.ndarray:
    """What ftfy puts in the place of single code points (uint32), for `span_kernels.rewrite`."""
    from raysandbox.ops import span_kernels

    table = np.arange(tables.CODE_POINTS, dtype=np.uint32)
    for code, replacement in _touched().items():
        if len(replacement) < 2:
            table[code] = ord(replacement) if replacement else span_kernels.DROPPED
    return table


@cache
def _touched() -> dict[int, str]:
    """The code points that ftfy changes wherever they stand, and what it makes of each alone."""
    from ftfy import chardata, fixes

    codes = {*chardata.LIGATURES, *chardata.WIDTH_MAP, *chardata.CONTROL_CHARS, 0x0D, 0x2028, 0x2029}
    codes |= {0x02BC, *range(0x2018, 0x2020)}  # curly quotes
    steps = (
        fixes.fix_latin_ligatures,
        fixes.fix_character_width,
        fixes.uncurl_quotes,
        fixes.fix_line_breaks,
        fixes.remove_control_chars,
    )
    touched = {}
    for code in codes:
        text = chr(code)
        for step in steps:
            text = step(text)
        touched[code] = text
    return touched


@cache
def _classes(form: Form) -> np.ndarray:
    """Classes of code points (uint8) for `span_kernels.suspect_segments`."""
    from raysandbox.ops import span_kernels

    table = _mojibake_classes() | tables.from_predicate(lambda char: _may_compose(char, form)) * span_kernels.COMPOSES
    for code, replacement in _touched().items():
        table[code] |= span_kernels.SIMPLE if len(replacement) < 2 else span_kernels.COMPLEX
    table[0x1B] |= span_kernels.COMPLEX  # starts a terminal escape
    table[0x80:0xA0] |= span_kernels.COMPLEX  # C1 controls
    table[ord("&")] = span_kernels.ENTITY
    table[ord("<")] = span_kernels.MARKUP
    table[ord("\n")] = span_kernels.LINE_END
    return table


def _mojibake_classes() -> np.ndarray:
    """Necessary conditions of ftfy.badness.BADNESS_RE, by the signs that it names.

    Each of its alternatives needs one of `_SUSPECT`, a C1 control, or two adjacent signs of which
    at least one is not an ordinary accented, Greek or Cyrillic letter or common punctuation.
    """
    from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES

    from raysandbox.ops import span_kernels

    weak_names = {"common", "lower_accented", "lower_common", "upper_common", "kaomoji"}
    weak = _expand(signs for name, signs in MOJIBAKE_CATEGORIES.items() if name in weak_names)
    strong = _expand(signs for name, signs in MOJIBAKE_CATEGORIES.items() if name not in weak_names)
    literal = {char for char in BADNESS_RE.pattern if not char.isascii()} - weak
    table = np.zeros(tables.CODE_POINTS, np.uint8)
    table[[ord(char) for char in weak - strong]] = span_kernels.WEAK
    table[[ord(char) for char in strong | literal | set(_STRONG)]] = span_kernels.STRONG
    table[[ord(char) for char in _SUSPECT]] |= span_kernels.SUSPECT
    return table


def _expand(classes: Any) -> set[str]:
    """The non-ASCII members of character classes, as written between brackets."""
    import re

    pattern = re.compile("[" + "".join(classes) + "]")
    return {chr(code) for code in range(0x80, 0x10000) if pattern.match(chr(code))}


@cache
def _second_of_pairs() -> frozenset[str]:
    """Code points that may merge with the one before: second of a canonical pair, Hangul jamo."""
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(tables.ASSIGNED))
    seconds = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    return frozenset(seconds | {chr(code) for code in range(0x1160, 0x1200)})


def _may_compose(char: str, form: Form) -> bool:
    return not unicodedata.is_normalized(form, char) or unicodedata.combining(char) != 0 or char in _second_of_pairs()
