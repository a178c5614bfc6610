"""Words of texts as Spark ML sees them, hashed as `HashingTF` does; compiled by Numba on import.

The kernels work on UTF-8 bytes: the separators are ASCII and the hash is one of bytes, so that no
word ever becomes a Python object.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["count_words", "hash_words", "sum_rows"]

_SEED = 42
_MASK = 0xFFFFFFFF
_SEPARATORS = np.zeros(256, dtype=np.bool_)
_SEPARATORS[list(b" \t\n\x0b\f\r")] = True


@njit(cache=True)
def _murmur3(data: np.ndarray, start: int, end: int) -> int:
    """MurmurHash3_x86_32 of `data[start:end]` with Spark's seed, as a signed 32-bit number."""
    state = np.uint64(_SEED)
    mask = np.uint64(_MASK)
    length = end - start
    for position in range(start, end, 4):
        block = np.uint64(0)
        size = min(4, end - position)
        for byte in range(size):
            block |= np.uint64(data[position + byte]) << np.uint64(8 * byte)
        block = (block * np.uint64(0xCC9E2D51)) & mask
        block = ((block << np.uint64(15)) | (block >> np.uint64(17))) & mask
        block = (block * np.uint64(0x1B873593)) & mask
        state ^= block
        if size == 4:
            state = ((state << np.uint64(13)) | (state >> np.uint64(19))) & mask
            state = (state * np.uint64(5) + np.uint64(0xE6546B64)) & mask
    state ^= np.uint64(length)
    state ^= state >> np.uint64(16)
    state = (state * np.uint64(0x85EBCA6B)) & mask
    state ^= state >> np.uint64(13)
    state = (state * np.uint64(0xC2B2AE35)) & mask
    state ^= state >> np.uint64(16)
    return int(np.int32(np.uint32(state)))


@njit(cache=True)
def _trimmed(data: np.ndarray, start: int, end: int) -> int:
    """End of a text without the separators that close it."""
    while end > start and _SEPARATORS[data[end - 1]]:
        end -= 1
    return end


@njit(cache=True)
def count_words(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    r"""Number of words per text, by the rules of Java's `split("\\s")`.

    Empty words at the start and between separators count, those at the end do not; an empty text
    is one empty word, a text of separators only has none.

    Args:
        data: UTF-8 bytes of all texts, uint8.
        offsets: where each text starts and the last one ends, shape (rows + 1,).

    Returns:
        where each text's words start in the list of all words, shape (rows + 1,).
    """
    words = np.zeros(len(offsets), dtype=np.int64)
    for row in range(len(offsets) - 1):
        start = offsets[row]
        end = _trimmed(data, start, offsets[row + 1])
        count = 0 if end == start < offsets[row + 1] else 1
        for position in range(start, end):
            count += _SEPARATORS[data[position]]
        words[row + 1] = words[row] + count
    return words


@njit(cache=True)
def hash_words(data: np.ndarray, offsets: np.ndarray, words: np.ndarray, num_features: int) -> np.ndarray:
    """Feature number of every word, in the order of the text.

    Args:
        data: UTF-8 bytes of all texts, uint8.
        offsets: where each text starts and the last one ends, shape (rows + 1,).
        words: what `count_words` returned.
        num_features: size of the feature space.

    Returns:
        int32 array of one number in [0, num_features) per word.
    """
    features = np.empty(words[-1], dtype=np.int32)
    for row in range(len(offsets) - 1):
        word = words[row]
        if word == words[row + 1]:
            continue
        start = offsets[row]
        end = _trimmed(data, start, offsets[row + 1])
        for position in range(start, end):
            if _SEPARATORS[data[position]]:
                features[word] = _murmur3(data, start, position) % num_features
                word += 1
                start = position + 1
        features[word] = _murmur3(data, start, end) % num_features
    return features


@njit(cache=True)
def sum_rows(starts: np.ndarray, features: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Sum of the coefficients of each row's features, added in order: independent of the batch.

    Args:
        starts: where each row's features start, shape (rows + 1,).
        features: feature numbers of all rows.
        coefficients: float64 array of shape (num_features,).

    Returns:
        float64 array of shape (rows,).
    """
    sums = np.zeros(len(starts) - 1, dtype=np.float64)
    for row in range(len(starts) - 1):
        for index in range(starts[row], starts[row + 1]):
            sums[row] += coefficients[features[index]]
    return sums
