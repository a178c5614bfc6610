"""Compiled loops over sentences, for `remove_repeat_sentences_mapper`; see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from raysandbox.ops.span_kernels import DROPPED, append

__all__ = ["ELLIPSIS", "NEWLINE", "QUOTE", "QUOTED_END", "SENTENCE_END", "repeated", "sentences"]

Array = np.ndarray[Any, Any]

# Classes of code points for `sentences`.
SENTENCE_END = 1  # ends a sentence
QUOTED_END = 2  # ends a sentence together with a closing quote after it
QUOTE = 4
ELLIPSIS = 8  # two of them end a sentence
NEWLINE = 16

_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


@njit(cache=True, nogil=True)
def _sentence_end(codes: Array, classes: Array, i: int, end: int, free: Array) -> int:
    """Where a sentence ends that ends with the signs from `i` on, or -1.

    Args:
        codes: code points.
        classes: table of the classes above.
        i: index of the first sign.
        end: where the row ends.
        free: for each of the three kinds of ends the index from which on it may be found; updated.
    """
    current = classes[codes[i]]
    following = classes[codes[i + 1]] if i + 1 < end else NEWLINE
    if current & SENTENCE_END and i >= free[0] and not following & (QUOTE | NEWLINE):
        free[0] = i + 2
        return i + 1
    after = classes[codes[i + 2]] if i + 2 < end else NEWLINE
    if not after & (QUOTE | NEWLINE):
        if current & ELLIPSIS and following & ELLIPSIS and i >= free[1]:
            free[1] = i + 3
            return i + 2
        if current & QUOTED_END and following & QUOTE and i >= free[2]:
            free[2] = i + 3
            return i + 2
    return -1


@njit(cache=True, nogil=True)
def sentences(codes: Array, starts: Array, ends: Array, classes: Array) -> Array:
    """Splits rows into lines and lines into sentences.

    A sentence ends after a sign that does not stand before a closing quote or at the end of a
    line. Each of the three kinds of ends is searched as a regular expression would: from left to
    right, and the character after an end belongs to its match.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        classes: table of the classes above.

    Returns:
        int64 of shape (sentences, 4): row, start, end, 0; without the newlines.
    """
    spans = np.empty((64, 4), np.int64)
    n = 0
    for row in range(starts.size):
        begin = starts[row]
        end = ends[row]
        free = np.full(3, begin)
        for i in range(begin, end):
            current = classes[codes[i]]
            if not current:
                continue
            cut = i if current & NEWLINE else _sentence_end(codes, classes, i, end, free)
            if cut > begin:
                spans = append(spans, n, row, begin, cut, 0)
                n += 1
                begin = cut
            if current & NEWLINE:
                begin = i + 1
        if begin < end:
            spans = append(spans, n, row, begin, end, 0)
            n += 1
    return spans[:n].copy()


@njit(cache=True, nogil=True)
def _same(codes: Array, folded: Array, a: Array, b: Array) -> bool:
    """Whether two spans (row, start, end, …) are equal after folding."""
    i = a[1]
    k = b[1]
    while True:
        while i < a[2] and folded[codes[i]] == DROPPED:
            i += 1
        while k < b[2] and folded[codes[k]] == DROPPED:
            k += 1
        if i == a[2] or k == b[2]:
            return i == a[2] and k == b[2]
        if folded[codes[i]] != folded[codes[k]]:
            return False
        i += 1
        k += 1


@njit(cache=True, nogil=True)
def repeated(codes: Array, spans: Array, folded: Array, shortest: int) -> Array:
    """Tells per sentence whether its row has an equal one before it.

    Args:
        codes: code points.
        spans: int64 of shape (sentences, 4): row, start, end and anything, ascending.
        folded: uint32, what each code point is compared as, `DROPPED` for those that do not count.
        shortest: number of code points below which a sentence is never taken for a repetition.

    Returns:
        bool per sentence.
    """
    count = spans.shape[0]
    found = np.zeros(count, np.bool_)
    size = 16
    while size < 2 * count:
        size *= 2
    mask = np.uint64(size - 1)
    slots = np.zeros(size, np.int64)  # index of a sentence, plus 1
    hashes = np.empty(count, np.uint64)
    for index in range(count):
        value = np.uint64(spans[index, 0]) * _HASH_BASE
        length = 0
        for i in range(spans[index, 1], spans[index, 2]):
            code = folded[codes[i]]
            if code != DROPPED:
                value = (value + np.uint64(code) + np.uint64(1)) * _HASH_BASE
                length += 1
        if length < shortest:
            continue
        value ^= value >> _SHIFT
        hashes[index] = value
        slot = value & mask
        while slots[slot]:
            other = slots[slot] - 1
            if (
                hashes[other] == value
                and spans[other, 0] == spans[index, 0]
                and _same(codes, folded, spans[other], spans[index])
            ):
                found[index] = True
                break
            slot = (slot + np.uint64(1)) & mask
        if not found[index]:
            slots[slot] = index + 1
    return found
