"""Compiled loops over code points, shared by the text operators.

Texts arrive as one uint32 array of code points; row `i` is `codes[starts[i]:ends[i]]`. Importing
this module imports numba, so operators import it inside the function that computes. numba keeps the
compiled code beside the source, or in the user's cache directory where that is read-only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = [
    "any_in",
    "char_ngram_repetition",
    "count_in",
    "count_listed",
    "decode",
    "line_lengths",
    "translate",
    "word_ngram_repetition",
    "word_spans",
]

Array = np.ndarray[Any, Any]

_CARRIAGE_RETURN = 13
_NEWLINE = 10

_HASH_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_HASH_MIX = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
# Parts of a slot; see `_hash_table`.
_FREE = np.uint64(0)
_TAG = np.uint64(0xFFFFFFFF00000000)
_PLACE = np.uint64(0x00000000FFFFFFFF)


@njit(cache=True, nogil=True)
def decode(data: Array, offsets: Array) -> tuple[Array, Array]:
    """Decodes UTF-8.

    Args:
        data: uint8, valid UTF-8.
        offsets: int64 of shape (rows + 1,), where each row's bytes start and end.

    Returns:
        the code points (uint32) and their offsets (int64, shape (rows + 1,)).
    """
    rows = offsets.size - 1
    total = 0
    for i in range(offsets[0], offsets[rows]):
        total += (data[i] & 0xC0) != 0x80
    codes = np.empty(total, np.uint32)
    bounds = np.empty(rows + 1, np.int64)
    n = 0
    for row in range(rows):
        bounds[row] = n
        i = offsets[row]
        end = offsets[row + 1]
        while i < end:
            lead = np.uint32(data[i])
            if lead < 0x80:
                codes[n] = lead
                i += 1
            elif lead < 0xE0:
                codes[n] = ((lead & 0x1F) << 6) | (data[i + 1] & 0x3F)
                i += 2
            elif lead < 0xF0:
                codes[n] = ((lead & 0x0F) << 12) | (np.uint32(data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F)
                i += 3
            else:
                codes[n] = (
                    ((lead & 0x07) << 18)
                    | (np.uint32(data[i + 1] & 0x3F) << 12)
                    | (np.uint32(data[i + 2] & 0x3F) << 6)
                    | (data[i + 3] & 0x3F)
                )
                i += 4
            n += 1
    bounds[rows] = n
    return codes, bounds


@njit(cache=True, nogil=True)
def translate(codes: Array, table: Array) -> Array:
    """Returns `table[codes]`, without the index conversion that makes NumPy slow here."""
    out = np.empty(codes.size, np.uint32)
    for i in range(codes.size):
        out[i] = table[codes[i]]
    return out


@njit(cache=True, nogil=True)
def count_in(codes: Array, starts: Array, ends: Array, table: Array) -> Array:
    """Counts per row the code points whose `table` entry (0 or 1) is set."""
    counts = np.empty(starts.size, np.int64)
    for row in range(starts.size):
        count = 0
        for i in range(starts[row], ends[row]):
            count += table[codes[i]]
        counts[row] = count
    return counts


@njit(cache=True, nogil=True)
def any_in(codes: Array, starts: Array, ends: Array, table: Array) -> Array:
    """Tells per row whether it holds a code point whose `table` entry is set."""
    found = np.zeros(starts.size, np.bool_)
    for row in range(starts.size):
        for i in range(starts[row], ends[row]):
            if table[codes[i]]:
                found[row] = True
                break
    return found


@njit(cache=True, nogil=True)
def line_lengths(codes: Array, starts: Array, ends: Array, breaks: Array) -> Array:
    """Number of lines and length of the longest, as `str.splitlines` counts them.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        breaks: table that is set for line boundaries.

    Returns:
        int64 of shape (rows, 2).
    """
    out = np.zeros((starts.size, 2), np.int64)
    for row in range(starts.size):
        begin = starts[row]
        end = ends[row]
        lines = 0
        longest = 0
        i = begin
        while i < end:
            if breaks[codes[i]]:
                lines += 1
                longest = max(longest, i - begin)
                if codes[i] == _CARRIAGE_RETURN and i + 1 < end and codes[i + 1] == _NEWLINE:
                    i += 1
                begin = i + 1
            i += 1
        if begin < end:
            lines += 1
            longest = max(longest, end - begin)
        out[row, 0] = lines
        out[row, 1] = longest
    return out


@njit(cache=True, nogil=True)
def word_spans(codes: Array, starts: Array, ends: Array, classes: Array) -> tuple[Array, Array, Array]:
    """Splits rows into words and strips the words' special characters from both ends.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        classes: table, bit 0 for separators, bit 1 for special characters.

    Returns:
        starts and ends of the words that are left, and the offsets of each row's words in them.
    """
    rows = starts.size
    capacity = rows
    for row in range(rows):
        for i in range(starts[row], ends[row]):
            capacity += classes[codes[i]] & 1
    word_starts = np.empty(capacity, np.int64)
    word_ends = np.empty(capacity, np.int64)
    offsets = np.empty(rows + 1, np.int64)
    n = 0
    for row in range(rows):
        offsets[row] = n
        begin = starts[row]
        for i in range(starts[row], ends[row] + 1):
            if i < ends[row] and not classes[codes[i]] & 1:
                continue
            left = begin
            right = i
            while left < right and classes[codes[left]] & 2:
                left += 1
            while left < right and classes[codes[right - 1]] & 2:
                right -= 1
            if left < right:
                word_starts[n] = left
                word_ends[n] = right
                n += 1
            begin = i + 1
    offsets[rows] = n
    return word_starts[:n].copy(), word_ends[:n].copy(), offsets


@njit(cache=True, nogil=True)
def _power(base: np.uint64, exponent: int) -> np.uint64:
    result = np.uint64(1)
    for _ in range(exponent):
        result *= base
    return result


@njit(cache=True, nogil=True)
def _slots(count: int) -> int:
    size = 16
    while size < 2 * count:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def _hash_table(starts: Array, ends: Array) -> tuple[Array, Array]:
    """Slots and counts, large enough for every row in turn.

    A slot is 0 when it is free, else an n-gram: the upper half of its hash, and 1 + its first place
    in the row in the lower half. Counts stand at the n-grams' first places.
    """
    longest = 0
    for row in range(starts.size):
        longest = max(longest, ends[row] - starts[row])
    return np.empty(_slots(longest), np.uint64), np.empty(longest, np.int32)


@njit(cache=True, nogil=True)
def _mixed(value: np.uint64) -> np.uint64:
    """Spreads a rolling hash over all bits."""
    mixed = value * _HASH_MIX
    return mixed ^ (mixed >> _SHIFT)


@njit(cache=True, nogil=True)
def _same_codes(codes: Array, a: int, b: int, length: int) -> bool:
    k = 0
    while k < length and codes[a + k] == codes[b + k]:
        k += 1
    return k == length


@njit(cache=True, nogil=True)
def _top_repeats(counts: Array, distinct: int) -> int:
    """Sum of the counts of the most frequent n-grams; see `char_ngram_repetition`."""
    frequencies = np.zeros(counts.max() + 1, np.int64)
    for count in counts:
        frequencies[count] += 1
    left = int(np.sqrt(distinct))
    total = 0
    for count in range(frequencies.size - 1, 1, -1):
        taken = min(left, frequencies[count])
        total += taken * count
        left -= taken
    return total


@njit(cache=True, nogil=True)
def char_ngram_repetition(codes: Array, starts: Array, ends: Array, n: int) -> Array:
    """Share of a row's character n-grams that its most frequent repeated n-grams make up.

    Of D distinct n-grams, the floor(sqrt(D)) most frequent ones that occur more than once count.
    Counting is exact: n-grams with equal hashes are compared.

    Returns:
        float64 per row, 0 for rows without an n-gram.
    """
    ratios = np.zeros(starts.size, np.float64)
    table, counts = _hash_table(starts, ends)
    leading = _power(_HASH_BASE, n - 1)
    for row in range(starts.size):
        start = starts[row]
        total = ends[row] - start - n + 1
        if total <= 0:
            continue
        size = _slots(total)
        table[:size] = _FREE
        mask = np.uint64(size - 1)
        distinct = 0
        value = np.uint64(0)
        for i in range(n - 1):
            value = value * _HASH_BASE + np.uint64(codes[start + i])
        for i in range(total):
            value = value * _HASH_BASE + np.uint64(codes[start + i + n - 1])
            mixed = _mixed(value)
            slot = mixed & mask
            counts[i] = 0
            while True:
                entry = table[slot]
                if entry == _FREE:
                    table[slot] = mixed & _TAG | np.uint64(i + 1)
                    counts[i] = 1
                    distinct += 1
                    break
                first = np.int64(entry & _PLACE) - 1
                if entry & _TAG == mixed & _TAG and _same_codes(codes, start + first, start + i, n):
                    counts[first] += 1
                    break
                slot = (slot + np.uint64(1)) & mask
            value -= np.uint64(codes[start + i]) * leading
        if distinct < total:
            ratios[row] = _top_repeats(counts[:total], distinct) / total
    return ratios


@njit(cache=True, nogil=True)
def _same_words(codes: Array, starts: Array, ends: Array, a: int, b: int, length: int) -> bool:
    for k in range(length):
        size = ends[a + k] - starts[a + k]
        if ends[b + k] - starts[b + k] != size or not _same_codes(codes, starts[a + k], starts[b + k], size):
            return False
    return True


@njit(cache=True, nogil=True)
def _word_hashes(codes: Array, starts: Array, ends: Array) -> Array:
    values = np.empty(starts.size, np.uint64)
    for word in range(starts.size):
        value = np.uint64(0)
        for i in range(starts[word], ends[word]):
            value = (value + np.uint64(codes[i]) + np.uint64(1)) * _HASH_BASE
        values[word] = value ^ (value >> _SHIFT)
    return values


@njit(cache=True, nogil=True)
def word_ngram_repetition(
    codes: Array, starts: Array, ends: Array, firsts_of_rows: Array, lasts_of_rows: Array, n: int
) -> Array:
    """Share of a row's word n-grams that occur more than once; exact, as for characters.

    Args:
        codes: code points.
        starts: where each word starts.
        ends: where each word ends.
        firsts_of_rows: index of each row's first word.
        lasts_of_rows: index after each row's last word.
        n: words in an n-gram.

    Returns:
        float64 per row, 0 for rows without an n-gram.
    """
    values = _word_hashes(codes, starts, ends)
    ratios = np.zeros(firsts_of_rows.size, np.float64)
    table, counts = _hash_table(firsts_of_rows, lasts_of_rows)
    leading = _power(_HASH_BASE, n - 1)
    for row in range(firsts_of_rows.size):
        start = firsts_of_rows[row]
        total = lasts_of_rows[row] - start - n + 1
        if total <= 0:
            continue
        size = _slots(total)
        table[:size] = _FREE
        mask = np.uint64(size - 1)
        repeated = 0
        value = np.uint64(0)
        for i in range(n - 1):
            value = value * _HASH_BASE + values[start + i]
        for i in range(total):
            value = value * _HASH_BASE + values[start + i + n - 1]
            mixed = _mixed(np.uint64(value))
            slot = mixed & mask
            while True:
                entry = table[slot]
                if entry == _FREE:
                    table[slot] = mixed & _TAG | np.uint64(i + 1)
                    counts[i] = 1
                    break
                first = np.int64(entry & _PLACE) - 1
                if entry & _TAG == mixed & _TAG and _same_words(codes, starts, ends, start + first, start + i, n):
                    repeated += 2 if counts[first] == 1 else 1
                    counts[first] = 2
                    break
                slot = (slot + np.uint64(1)) & mask
            value -= values[start + i] * leading
        ratios[row] = repeated / total
    return ratios


@njit(cache=True, nogil=True)
def count_listed(
    codes: Array,
    starts: Array,
    ends: Array,
    firsts_of_rows: Array,
    lasts_of_rows: Array,
    listed: Array,
    listed_starts: Array,
    listed_ends: Array,
) -> Array:
    """Counts per row the words that stand in a list; exact: words with equal hashes are compared.

    Args:
        codes: code points.
        starts: where each word starts.
        ends: where each word ends.
        firsts_of_rows: index of each row's first word.
        lasts_of_rows: index after each row's last word.
        listed: code points of the list.
        listed_starts: where each word of the list starts.
        listed_ends: where each word of the list ends.
    """
    values = _word_hashes(codes, starts, ends)
    known = _word_hashes(listed, listed_starts, listed_ends)
    size = _slots(known.size)
    mask = np.uint64(size - 1)
    slots = np.full(size, -1, np.int64)
    for word in range(known.size):
        slot = known[word] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = word
    counts = np.zeros(firsts_of_rows.size, np.int64)
    for row in range(firsts_of_rows.size):
        for word in range(firsts_of_rows[row], lasts_of_rows[row]):
            slot = values[word] & mask
            while slots[slot] >= 0:
                other = slots[slot]
                if known[other] == values[word] and np.array_equal(
                    codes[starts[word] : ends[word]], listed[listed_starts[other] : listed_ends[other]]
                ):
                    counts[row] += 1
                    break
                slot = (slot + np.uint64(1)) & mask
    return counts
