"""A compiled loop that replaces characters; see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["substitute"]

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
