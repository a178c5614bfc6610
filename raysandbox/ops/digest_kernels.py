"""SHA-1 and MD5 of many short messages at once, compiled.

Both digests are chains of steps that each need the one before, but messages do not need each other:
up to `LANES` of them go through every step together, so that the compiler uses the processor's
vector units. Only as much of a digest is computed as the sketches of texts use.

Sources: FIPS 180-4 (SHA-1), RFC 1321 (MD5).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["LANES", "md5_prefixes", "scratch", "sha1_prefixes"]

Array = np.ndarray[Any, Any]

LANES = 128
_BLOCK = 64  # bytes that one round of the digest takes in
_SHA1_STEPS = 80
_MD5_STEPS = 64
_START = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0], np.uint32)
_MD5_SINES = np.array([int(abs(math.sin(step + 1)) * 2**32) for step in range(_MD5_STEPS)], np.uint32)
_MD5_SHIFTS = np.array([[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]], np.uint32)


@njit(cache=True, nogil=True)
def scratch() -> tuple[Array, Array, Array, Array]:
    """Memory that the digests need: words, chain, state and the lanes in use; one set serves many calls."""
    words = np.empty((_SHA1_STEPS, LANES), np.uint32)
    chain = np.empty((_SHA1_STEPS + 5, LANES), np.uint32)
    state = np.empty((5, LANES), np.uint32)
    return words, chain, state, np.empty(LANES, np.int64)


@njit(cache=True, nogil=True)
def _left(value: np.uint32, bits: int) -> np.uint32:
    return np.uint32((value << np.uint32(bits)) | (value >> np.uint32(32 - bits)))


@njit(cache=True, nogil=True)
def _swapped(value: np.uint32) -> np.uint32:
    """The four bytes in reverse."""
    return np.uint32(
        (value << np.uint32(24))
        | ((value & np.uint32(0xFF00)) << np.uint32(8))
        | ((value >> np.uint32(8)) & np.uint32(0xFF00))
        | (value >> np.uint32(24))
    )


@njit(cache=True, nogil=True)
def _fill(data: Array, start: int, length: int, block: int, words: Array, lane: int) -> None:
    """Writes one block of a message, padded at its end, as big-endian words without the length."""
    left = length - block * _BLOCK
    whole = min(16, max(0, left // 4))
    place = np.uint64(start + block * _BLOCK)
    for word in range(whole):
        words[word, lane] = (
            np.uint32(data[place]) << np.uint32(24)
            | np.uint32(data[place + np.uint64(1)]) << np.uint32(16)
            | np.uint32(data[place + np.uint64(2)]) << np.uint32(8)
            | np.uint32(data[place + np.uint64(3)])
        )
        place += np.uint64(4)
    for word in range(whole, 16):
        words[word, lane] = 0
    if whole < 16 and left >= 0:
        rest = left - 4 * whole
        value = np.uint32(0x80) << np.uint32(24 - 8 * rest)
        for i in range(rest):
            value |= np.uint32(data[place + np.uint64(i)]) << np.uint32(24 - 8 * i)
        words[whole, lane] = value


@njit(cache=True, nogil=True)
def _load(data: Array, starts: Array, ends: Array, block: int, little: bool, words: Array, lanes: Array) -> int:
    """Fills `words` with the given block of every message that has one; returns their number.

    Args:
        data: uint8.
        starts: where each message starts.
        ends: where each message ends.
        block: which block.
        little: whether bytes form words, and words the length, with the least significant first.
        words: receives a column for each message.
        lanes: receives the messages' indices.
    """
    used = 0
    for i in range(starts.size):
        length = ends[i] - starts[i]
        last = (length + 8) // _BLOCK
        if last < block:
            continue
        _fill(data, starts[i], length, block, words, used)
        if little:
            for word in range(16):
                words[word, used] = _swapped(words[word, used])
        if last == block:  # ends with the length in bits
            words[14, used] = length << 3 if little else length >> 29
            words[15, used] = length >> 29 if little else length << 3
        lanes[used] = i
        used += 1
    return used


@njit(cache=True, nogil=True)
def sha1_prefixes(data: Array, starts: Array, ends: Array, work: tuple[Array, Array, Array, Array], out: Array) -> None:
    """The first four bytes of each message's SHA-1 as a little-endian number.

    Args:
        data: uint8.
        starts: int64, where each message starts; at most `LANES` of them.
        ends: int64, where each message ends.
        work: from `scratch`.
        out: receives the numbers (an integer array).
    """
    words, chain, state, lanes = work
    for k in range(5):
        state[k, : starts.size] = _START[k]
    block = 0
    while True:
        used = _load(data, starts, ends, block, False, words, lanes)
        if used == 0:
            break
        _sha1_block(words, chain, state, lanes[:used])
        block += 1
    for i in range(starts.size):
        out[i] = _swapped(state[0, i])


@njit(cache=True, nogil=True)
def _sha1_block(words: Array, chain: Array, state: Array, lanes: Array) -> None:
    """One block. Row t + 4 of `chain` is the standard's variable a at step t; b to e are earlier rows."""
    n = lanes.size
    for t in range(16, _SHA1_STEPS):
        _sha1_extend(words[t - 16 : t + 1], n)
    for i in range(n):
        message = lanes[i]
        chain[4, i] = state[0, message]
        chain[3, i] = state[1, message]
        for k in range(2, 5):  # c, d and e are used rotated by 30: undone here
            chain[4 - k, i] = _left(state[k, message], 2)
    for t in range(_SHA1_STEPS):
        if t < 20:
            _sha1_choose(words[t], chain[t : t + 6], np.uint32(0x5A827999), n)
        elif t < 40:
            _sha1_parity(words[t], chain[t : t + 6], np.uint32(0x6ED9EBA1), n)
        elif t < 60:
            _sha1_majority(words[t], chain[t : t + 6], np.uint32(0x8F1BBCDC), n)
        else:
            _sha1_parity(words[t], chain[t : t + 6], np.uint32(0xCA62C1D6), n)
    for i in range(n):
        message = lanes[i]
        state[0, message] += chain[84, i]
        state[1, message] += chain[83, i]
        for k in range(2, 5):
            state[k, message] += _left(chain[84 - k, i], 30)


# The loops over messages are functions of their own, over few rows: only then are they vectorised.


@njit(cache=True, nogil=True)
def _sha1_extend(words: Array, n: int) -> None:
    for i in range(n):
        words[16, i] = _left(words[13, i] ^ words[8, i] ^ words[2, i] ^ words[0, i], 1)


@njit(cache=True, nogil=True)
def _sha1_choose(words: Array, chain: Array, constant: np.uint32, n: int) -> None:
    for i in range(n):
        d = _left(chain[1, i], 30)
        mixed = d ^ (chain[3, i] & (_left(chain[2, i], 30) ^ d))
        chain[5, i] = _left(chain[4, i], 5) + mixed + _left(chain[0, i], 30) + words[i] + constant


@njit(cache=True, nogil=True)
def _sha1_parity(words: Array, chain: Array, constant: np.uint32, n: int) -> None:
    for i in range(n):
        mixed = chain[3, i] ^ _left(chain[2, i], 30) ^ _left(chain[1, i], 30)
        chain[5, i] = _left(chain[4, i], 5) + mixed + _left(chain[0, i], 30) + words[i] + constant


@njit(cache=True, nogil=True)
def _sha1_majority(words: Array, chain: Array, constant: np.uint32, n: int) -> None:
    for i in range(n):
        b, c, d = chain[3, i], _left(chain[2, i], 30), _left(chain[1, i], 30)
        mixed = (b & c) | (d & (b | c))
        chain[5, i] = _left(chain[4, i], 5) + mixed + _left(chain[0, i], 30) + words[i] + constant


@njit(cache=True, nogil=True)
def md5_prefixes(data: Array, starts: Array, ends: Array, work: tuple[Array, Array, Array, Array], out: Array) -> None:
    """The first eight bytes of each message's MD5 as a big-endian number.

    Arguments as for `sha1_prefixes`.
    """
    words, chain, state, lanes = work
    for k in range(4):
        state[k, : starts.size] = _START[k]
    block = 0
    while True:
        used = _load(data, starts, ends, block, True, words, lanes)
        if used == 0:
            break
        _md5_block(words, chain, state, lanes[:used])
        block += 1
    for i in range(starts.size):
        out[i] = np.uint64(_swapped(state[0, i])) << np.uint64(32) | np.uint64(_swapped(state[1, i]))


@njit(cache=True, nogil=True)
def _md5_block(words: Array, chain: Array, state: Array, lanes: Array) -> None:
    """One block. Row t + 3 of `chain` is the standard's variable b at step t; c, d and a are the rows before."""
    n = lanes.size
    for i in range(n):
        for k in range(4):
            chain[(4 - k) % 4, i] = state[k, lanes[i]]
    for t in range(_MD5_STEPS):
        if t < 16:
            _md5_first(words[t], chain[t : t + 5], _MD5_SINES[t], _MD5_SHIFTS[0, t % 4], n)
        elif t < 32:
            _md5_second(words[(5 * t + 1) % 16], chain[t : t + 5], _MD5_SINES[t], _MD5_SHIFTS[1, t % 4], n)
        elif t < 48:
            _md5_third(words[(3 * t + 5) % 16], chain[t : t + 5], _MD5_SINES[t], _MD5_SHIFTS[2, t % 4], n)
        else:
            _md5_fourth(words[(7 * t) % 16], chain[t : t + 5], _MD5_SINES[t], _MD5_SHIFTS[3, t % 4], n)
    for i in range(n):
        for k in range(4):
            state[k, lanes[i]] += chain[_MD5_STEPS + (4 - k) % 4, i]


@njit(cache=True, nogil=True)
def _md5_first(words: Array, chain: Array, sine: np.uint32, shift: int, n: int) -> None:
    for i in range(n):
        mixed = chain[1, i] ^ (chain[3, i] & (chain[2, i] ^ chain[1, i]))
        chain[4, i] = chain[3, i] + _left(np.uint32(chain[0, i] + mixed + words[i] + sine), shift)


@njit(cache=True, nogil=True)
def _md5_second(words: Array, chain: Array, sine: np.uint32, shift: int, n: int) -> None:
    for i in range(n):
        mixed = chain[2, i] ^ (chain[1, i] & (chain[3, i] ^ chain[2, i]))
        chain[4, i] = chain[3, i] + _left(np.uint32(chain[0, i] + mixed + words[i] + sine), shift)


@njit(cache=True, nogil=True)
def _md5_third(words: Array, chain: Array, sine: np.uint32, shift: int, n: int) -> None:
    for i in range(n):
        mixed = chain[3, i] ^ chain[2, i] ^ chain[1, i]
        chain[4, i] = chain[3, i] + _left(np.uint32(chain[0, i] + mixed + words[i] + sine), shift)


@njit(cache=True, nogil=True)
def _md5_fourth(words: Array, chain: Array, sine: np.uint32, shift: int, n: int) -> None:
    for i in range(n):
        mixed = chain[2, i] ^ (chain[3, i] | ~chain[1, i])
        chain[4, i] = chain[3, i] + _left(np.uint32(chain[0, i] + mixed + words[i] + sine), shift)
