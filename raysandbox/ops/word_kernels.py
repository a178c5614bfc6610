"""Compiled loops over words, for mappers that drop some of them; see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["hold_any", "join"]

Array = np.ndarray[Any, Any]

_TAB, _NEWLINE, _SPACE = 9, 10, 32


@njit(cache=True, nogil=True)
def hold_any(codes: Array, starts: Array, ends: Array, patterns: Array, bounds: Array) -> Array:
    """Tells per word whether it holds one of the patterns `patterns[bounds[k]:bounds[k + 1]]`."""
    found = np.zeros(starts.size, np.bool_)
    for word in range(starts.size):
        for k in range(bounds.size - 1):
            first = bounds[k]
            size = bounds[k + 1] - first
            for i in range(starts[word], ends[word] - size + 1):
                same = 0
                while same < size and codes[i + same] == patterns[first + same]:
                    same += 1
                if same == size:
                    found[word] = True
                    break
            if found[word]:
                break
    return found


@njit(cache=True, nogil=True)
def join(
    codes: Array,
    starts: Array,
    ends: Array,
    firsts: Array,
    lasts: Array,
    word_starts: Array,
    word_ends: Array,
    keep: Array,
) -> tuple[Array, Array, Array]:
    """Puts the words that stay into texts again.

    Between two of them stands a newline if there was one anywhere between them, else a tab if
    there was one, else a space.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        firsts: index of each row's first word.
        lasts: index after each row's last word.
        word_starts: where each word starts.
        word_ends: where each word ends.
        keep: bool per word.

    Returns:
        the code points of the new texts (uint32), their offsets (int64, shape (rows + 1,)), and
        whether each differs from the old one.
    """
    rows = starts.size
    total = 0
    for row in range(rows):
        total += ends[row] - starts[row]
    out = np.empty(total, np.uint32)
    bounds = np.zeros(rows + 1, np.int64)
    changed = np.zeros(rows, np.bool_)
    n = 0
    for row in range(rows):
        begin = n
        left = starts[row]
        for word in range(firsts[row], lasts[row]):
            if not keep[word]:
                continue
            if n > begin:
                out[n] = _separator(codes, left, word_starts[word])
                n += 1
            for i in range(word_starts[word], word_ends[word]):
                out[n] = codes[i]
                n += 1
            left = word_ends[word]
        bounds[row + 1] = n
        size = n - begin
        k = 0
        while k < size and out[begin + k] == codes[starts[row] + k]:
            k += 1
        changed[row] = k < ends[row] - starts[row]
    return out[:n].copy(), bounds, changed


@njit(cache=True, nogil=True)
def _separator(codes: Array, start: int, end: int) -> int:
    strongest = _SPACE
    for i in range(start, end):
        if codes[i] == _NEWLINE:
            return _NEWLINE
        if codes[i] == _TAB:
            strongest = _TAB
    return strongest
