"""Sketches of texts, compiled: MinHash bands and SimHash values of a row's shingles.

A shingle is a window of consecutive tokens. A row's tokens are written one after the other as UTF-8,
joined as its shingles join them, so that every shingle is one span of bytes. Rows arrive as one
array of code points, as in `kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from raysandbox.ops.digest_kernels import LANES, md5_prefixes, scratch, sha1_prefixes

__all__ = ["minhash_bands", "simhashes"]

Array = np.ndarray[Any, Any]

_SPACE = np.uint8(32)
_HASH_BITS = np.uint64(0xFFFFFFFF)
_PRIME = np.uint64((1 << 61) - 1)
_PRIME_BITS = np.uint64(61)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def _write(code: np.uint32, data: Array, n: int) -> int:
    """Appends a code point to `data` as UTF-8; returns the new end."""
    if code < 0x80:
        data[n] = code
        return n + 1
    if code < 0x800:
        data[n] = 0xC0 | (code >> 6)
        data[n + 1] = 0x80 | (code & 0x3F)
        return n + 2
    if code < 0x10000:
        data[n] = 0xE0 | (code >> 12)
        data[n + 1] = 0x80 | ((code >> 6) & 0x3F)
        data[n + 2] = 0x80 | (code & 0x3F)
        return n + 3
    data[n] = 0xF0 | (code >> 18)
    data[n + 1] = 0x80 | ((code >> 12) & 0x3F)
    data[n + 2] = 0x80 | ((code >> 6) & 0x3F)
    data[n + 3] = 0x80 | (code & 0x3F)
    return n + 4


@njit(cache=True, nogil=True)
def _row_buffers(starts: Array, ends: Array) -> tuple[Array, Array, Array]:
    """Bytes of a row's tokens, and where each starts and ends: large enough for every row in turn."""
    longest = 0
    for row in range(starts.size):
        longest = max(longest, ends[row] - starts[row])
    return np.empty(5 * longest + 8, np.uint8), np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)


@njit(cache=True, nogil=True)
def _split(codes: Array, ends_token: Array, rule: tuple[bool, bool, bool], row: tuple[Array, Array, Array]) -> int:
    """Writes the tokens of one row; returns their number. Arguments as for `minhash_bands`."""
    single, keep_empty, spaced = rule
    data, firsts, lasts = row
    count, n, begin = 0, 0, 0
    for i in range(codes.size + 1):
        if i < codes.size and not ends_token[codes[i]]:
            n = _write(codes[i], data, n)
            if not single:
                continue
        if n > begin or keep_empty:
            firsts[count], lasts[count] = begin, n
            count += 1
            if spaced:
                data[n] = _SPACE
                n += 1
            begin = n
    return count


@njit(cache=True, nogil=True)
def minhash_bands(
    codes: Array,
    starts: Array,
    ends: Array,
    ends_token: Array,
    rule: tuple[bool, bool, bool],
    window: int,
    factors: Array,
    summands: Array,
    bands: int,
) -> Array:
    """A hash of each band of each row's MinHash signature.

    Value k of a signature is the least of ((hash * factors[k] + summands[k]) mod 2**64 mod (2**61 - 1))
    mod 2**32 over a row's shingles, `hash` being four bytes of their SHA-1: Data-Juicer's family, with
    its overflow. A row without a shingle has the largest number everywhere.

    Args:
        codes: code points of all rows; numbers beyond them may stand between tokens.
        starts: where each row starts.
        ends: where each row ends.
        ends_token: table, 1 for what stands between tokens.
        rule: whether every code point is a token; whether empty tokens count; whether shingles have a
            space between their tokens.
        window: tokens in a shingle.
        factors: uint64, one per value of the signature.
        summands: uint64, one per value of the signature.
        bands: number of bands, a divisor of the number of values.

    Returns:
        uint64 of shape (rows, bands).
    """
    row = _row_buffers(starts, ends)
    data, firsts, lasts = row
    work = scratch()
    hashes = np.empty(LANES, np.uint64)
    signature = np.empty(factors.size, np.uint64)
    out = np.empty((starts.size, bands), np.uint64)
    for r in range(starts.size):
        signature[:] = _HASH_BITS
        shingles = max(0, _split(codes[starts[r] : ends[r]], ends_token, rule, row) - window + 1)
        for first in range(0, shingles, LANES):
            last = min(first + LANES, shingles)
            sha1_prefixes(data, firsts[first:last], lasts[first + window - 1 : last + window - 1], work, hashes)
            _lower_signature(signature, hashes[: last - first], factors, summands)
        _hash_bands(signature, out[r])
    return out


@njit(cache=True, nogil=True)
def _lower_signature(signature: Array, hashes: Array, factors: Array, summands: Array) -> None:
    for k in range(signature.size):
        factor, summand, least = factors[k], summands[k], signature[k]
        for i in range(hashes.size):
            value = hashes[i] * factor + summand
            value = (value & _PRIME) + (value >> _PRIME_BITS)  # mod the prime, but for one subtraction
            value = (value - _PRIME if value >= _PRIME else value) & _HASH_BITS
            least = min(least, value)
        signature[k] = least


@njit(cache=True, nogil=True)
def _hash_bands(signature: Array, out: Array) -> None:
    """A 64-bit hash of each of the signature's `out.size` equal parts."""
    size = signature.size // out.size
    for band in range(out.size):
        value = np.uint64(0)
        for k in range(band * size, (band + 1) * size):
            value = (value ^ signature[k]) * _MIX
            value ^= value >> np.uint64(32)
        out[band] = value


@njit(cache=True, nogil=True)
def simhashes(
    codes: Array, starts: Array, ends: Array, ends_token: Array, rule: tuple[bool, bool, bool], window: int
) -> Array:
    """The SimHash of each row: bit k is set where most of its shingles' hashes have bit k set.

    The hash of a shingle is the first eight bytes of its MD5, as in the package `simhash`. A row
    without a shingle has the value 0. Arguments as for `minhash_bands`.

    Returns:
        uint64 per row.
    """
    row = _row_buffers(starts, ends)
    data, firsts, lasts = row
    work = scratch()
    hashes = np.empty(LANES, np.uint64)
    out = np.empty(starts.size, np.uint64)
    for r in range(starts.size):
        counts = np.zeros(64, np.int64)
        shingles = max(0, _split(codes[starts[r] : ends[r]], ends_token, rule, row) - window + 1)
        for first in range(0, shingles, LANES):
            last = min(first + LANES, shingles)
            md5_prefixes(data, firsts[first:last], lasts[first + window - 1 : last + window - 1], work, hashes)
            for i in range(last - first):
                for k in range(64):
                    counts[k] += np.int64((hashes[i] >> np.uint64(k)) & np.uint64(1))
        value = np.uint64(0)
        for k in range(64):
            if 2 * counts[k] > shingles:
                value |= np.uint64(1) << np.uint64(k)
        out[r] = value
    return out
