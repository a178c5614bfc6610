"""Compiled loops that replace characters or leave some out; see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["leave_out", "substitute"]

Array = np.ndarray[Any, Any]


@njit(cache=True, nogil=True)
def substitute(
    codes: Array, starts: Array, ends: Array, table: Array, new_codes: Array, new_bounds: Array
) -> tuple[Array, Array, Array]:
    """Replaces code points by any number of others.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        table: 0 for code points that stay, k for those that replacement k - 1 takes the place of.
        new_codes: uint32, the code points of all replacements.
        new_bounds: int64, replacement k is `new_codes[new_bounds[k]:new_bounds[k + 1]]`.

    Returns:
        the new code points (uint32) and where each row starts and ends (int64).
    """
    total = 0
    for row in range(starts.size):
        for i in range(starts[row], ends[row]):
            k = table[codes[i]]
            total += new_bounds[k] - new_bounds[k - 1] if k else 1
    out = np.empty(total, np.uint32)
    new_starts = np.empty(starts.size, np.int64)
    new_ends = np.empty(starts.size, np.int64)
    n = 0
    for row in range(starts.size):
        new_starts[row] = n
        for i in range(starts[row], ends[row]):
            k = table[codes[i]]
            if k == 0:
                out[n] = codes[i]
                n += 1
                continue
            for m in range(new_bounds[k - 1], new_bounds[k]):
                out[n] = new_codes[m]
                n += 1
        new_ends[row] = n
    return out, new_starts, new_ends


@njit(cache=True, nogil=True)
def leave_out(codes: Array, starts: Array, ends: Array, spans: Array) -> tuple[Array, Array, Array, Array]:
    """Leaves spans out of the rows that they lie in.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        spans: int64 of shape (n, 4): row, start, end and anything; ascending and without overlap.

    Returns:
        the rows that change, their new code points (uint32), and where each starts and ends (int64).
    """
    count = 0
    total = 0
    for k in range(spans.shape[0]):
        row = spans[k, 0]
        if k == 0 or spans[k - 1, 0] != row:
            count += 1
            total += ends[row] - starts[row]
        total -= spans[k, 2] - spans[k, 1]
    rows = np.empty(count, np.int64)
    new_bounds = np.empty(count + 1, np.int64)
    out = np.empty(total, np.uint32)
    count = 0
    copied = 0
    n = 0
    for k in range(spans.shape[0]):
        row = int(spans[k, 0])
        if k == 0 or spans[k - 1, 0] != row:
            copied = starts[row]
            rows[count] = row
            new_bounds[count] = n
            count += 1
        n = _copy(codes, copied, spans[k, 1], out, n)
        copied = spans[k, 2]
        if k + 1 == spans.shape[0] or spans[k + 1, 0] != row:
            n = _copy(codes, copied, ends[row], out, n)
    new_bounds[count] = n
    return rows, out, new_bounds[:-1].copy(), new_bounds[1:].copy()


@njit(cache=True, nogil=True)
def _copy(codes: Array, start: int, end: int, out: Array, n: int) -> int:
    for i in range(start, end):
        out[n] = codes[i]
        n += 1
    return n
