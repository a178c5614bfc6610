"""Compiled loops that change texts as code points and encode them again; see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["encode", "gather", "splice", "strip"]

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def encode(codes: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    """Encodes rows as UTF-8.

    Returns:
        the bytes (uint8) and the rows' offsets in them (int64, shape (rows + 1,)).
    """
    rows = starts.size
    offsets = np.empty(rows + 1, np.int64)
    offsets[0] = 0
    for row in range(rows):
        size = 0
        for code in codes[starts[row] : ends[row]]:
            size += 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
        offsets[row + 1] = offsets[row] + size
    data = np.empty(offsets[rows], np.uint8)
    n = 0
    for row in range(rows):
        for code in codes[starts[row] : ends[row]]:
            if code < 0x80:
                data[n] = code
                n += 1
                continue
            if code < 0x800:
                data[n] = 0xC0 | (code >> 6)
                n += 1
            else:
                if code < 0x10000:
                    data[n] = 0xE0 | (code >> 12)
                    n += 1
                else:
                    data[n] = 0xF0 | (code >> 18)
                    data[n + 1] = 0x80 | ((code >> 12) & 0x3F)
                    n += 2
                data[n] = 0x80 | ((code >> 6) & 0x3F)
                n += 1
            data[n] = 0x80 | (code & 0x3F)
            n += 1
    return data, offsets


@njit(cache=True, nogil=True)
def strip(codes: Array, starts: Array, ends: Array, table: Array) -> tuple[Array, Array]:
    """Where each row starts and ends without the code points at its ends whose `table` entry is set."""
    first = starts.copy()
    last = ends.copy()
    for row in range(starts.size):
        while first[row] < last[row] and table[codes[first[row]]]:
            first[row] += 1
        while first[row] < last[row] and table[codes[last[row] - 1]]:
            last[row] -= 1
    return first, last


@njit(cache=True, nogil=True)
def gather(codes: Array, starts: Array, ends: Array) -> Array:
    """Returns the code points from each start to its end, one after the other."""
    out = np.empty((ends - starts).sum(), codes.dtype)
    n = 0
    for k in range(starts.size):
        n = _copy(codes, starts[k], ends[k], out, n)
    return out


@njit(cache=True, nogil=True)
def splice(
    codes: Array, starts: Array, ends: Array, spans: Array, new: Array, bounds: Array
) -> tuple[Array, Array, Array]:
    """Replaces spans of rows.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        spans: int64 of shape (n, 3 or more): row, start, end; ascending and without overlap.
        new: code points of what replaces them.
        bounds: int64 of shape (n + 1,), where each replacement starts and ends in `new`.

    Returns:
        the code points of all rows without gaps, and where each row starts and ends in them.
    """
    out = np.empty((ends - starts).sum() - (spans[:, 2] - spans[:, 1]).sum() + new.size, codes.dtype)
    first = np.empty(starts.size, np.int64)
    last = np.empty(starts.size, np.int64)
    n = 0
    k = 0
    for row in range(starts.size):
        first[row] = n
        copied = starts[row]
        while k < spans.shape[0] and spans[k, 0] == row:
            n = _copy(codes, copied, spans[k, 1], out, n)
            n = _copy(new, bounds[k], bounds[k + 1], out, n)
            copied = spans[k, 2]
            k += 1
        n = _copy(codes, copied, ends[row], out, n)
        last[row] = n
    return out, first, last


@njit(cache=True, nogil=True)
def _copy(source: Array, start: int, end: int, target: Array, position: int) -> int:
    """Copies `source[start:end]` to a position of the target; returns the position after it."""
    for i in range(end - start):
        target[position + i] = source[start + i]
    return position + end - start
