"""Properties of code points as lookup tables, one entry per code point."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import regex

from raysandbox.ops.special_characters import SPECIAL_RANGES

__all__ = [
    "ASSIGNED",
    "CODE_POINTS",
    "alphabetic_or_numeric",
    "from_predicate",
    "line_breaks",
    "lower",
    "lowers_in_context",
    "matching",
    "members",
    "moves_words",
    "special",
    "whitespace",
    "word_classes",
]

CODE_POINTS = 0x110000
# Beyond the planes 0 to 3 there are only tags, variation selectors and private characters, which
# are neither letters nor digits nor spaces and do not change with case or normalisation.
ASSIGNED = 0x40000


@cache
def members(characters: str) -> np.ndarray:
    """A uint8 table that is 1 for the given characters."""
    table = np.zeros(CODE_POINTS, np.uint8)
    table[[ord(character) for character in characters]] = 1
    return table


def from_predicate(predicate: Callable[[str], bool]) -> np.ndarray:
    """A uint8 table of a property that no code point from `ASSIGNED` on has."""
    table = np.zeros(CODE_POINTS, np.uint8)
    table[:ASSIGNED] = [predicate(chr(code)) for code in range(ASSIGNED)]
    return table


@cache
def matching(character_class: str) -> np.ndarray:
    """A uint8 table that is 1 where a character class of the package `regex`, as `[^a-z]`, matches."""
    everything = np.arange(CODE_POINTS, dtype=np.uint32).tobytes().decode("utf-32-le", "surrogatepass")
    table = np.zeros(CODE_POINTS, np.uint8)
    for match in regex.finditer(f"{character_class}+", everything):
        table[slice(*match.span())] = 1
    return table


@cache
def alphabetic_or_numeric() -> np.ndarray:
    """1 where `str.isalnum` holds."""
    return from_predicate(str.isalnum)


@cache
def whitespace() -> np.ndarray:
    """1 where `str.isspace` holds: what `str.strip` removes."""
    return from_predicate(str.isspace)


def line_breaks() -> np.ndarray:
    """1 where `str.splitlines` ends a line."""
    return members("\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")


@cache
def special() -> np.ndarray:
    """1 for Data-Juicer's special characters."""
    table = np.zeros(CODE_POINTS, np.uint8)
    for bounds in SPECIAL_RANGES.split():
        first, _, last = bounds.partition("-")
        table[int(first, 16) : int(last or first, 16) + 1] = 1
    return table


@cache
def word_classes() -> np.ndarray:
    """For `kernels.word_spans`: bit 0 for the separators of words, bit 1 for special characters."""
    return members(" \n\t") | special() << 1


@cache
def lower() -> np.ndarray:
    """Lower case (uint32) of every code point whose lower case is one code point, else itself."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for code in range(ASSIGNED):
        lowered = chr(code).lower()
        if len(lowered) == 1:
            table[code] = ord(lowered)
    return table


@cache
def lowers_in_context() -> np.ndarray:
    """1 for the two characters that `lower` cannot map alone: İ becomes two, Σ depends on its word."""
    return members("\u0130\u03a3")


@cache
def moves_words() -> np.ndarray:
    """1 for characters that in lower case may be no longer, or newly, stripped from words, or be several."""
    return (word_classes()[lower()] != word_classes()).astype(np.uint8) | lowers_in_context()
