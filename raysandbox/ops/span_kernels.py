"""Compiled loops that find the spans of texts which mappers may change; see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["append", "email_spans", "ip_spans", "link_spans", "rewrite", "suspect_segments"]

Array = np.ndarray[Any, Any]

_NEWLINE, _CARRIAGE_RETURN = 10, 13
_DOT, _SLASH, _COLON, _AT = 46, 47, 58, 64

# Classes of code points, and reasons for looking at a segment, for `suspect_segments`.
SIMPLE = 1  # ftfy drops it or replaces it by one other code point
COMPLEX = 2  # ftfy may do something else with it
ENTITY = 4  # the ampersand
MARKUP = 8  # the less-than sign
WEAK = 16  # mojibake only beside a strong sign
STRONG = 32  # mojibake only beside a weak or strong sign
SUSPECT = 64  # can be mojibake in other neighbourhoods
COMPOSES = 128  # normalisation may change it or its neighbour
LINE_END = ENTITY | MARKUP  # the newline; no sign is both

DROPPED = np.uint32(0xFFFFFFFF)  # in the table of `rewrite`


@njit(cache=True, nogil=True)
def _is_link_prefix(codes: Array, begin: int, end: int, i: int, letters: Array) -> bool:
    """Whether a link's prefix, somewhere in `codes[begin:end]`, may have its characteristic sign at position `i`."""
    if codes[i] == _COLON:  # scheme:/ or scheme:name
        if begin < i and i + 1 < end:
            after = codes[i + 1]
            if after == _SLASH or letters[after] & 5:
                return True
        return False
    k = i + 1  # name.com/
    while k < end and k - i <= 5 and letters[codes[k]] & 1:
        k += 1
    if 3 <= k - i <= 5 and k < end and codes[k] == _SLASH:
        return True
    k = i - 1  # www. and www1. to www123.
    while k >= begin and i - k <= 3 and letters[codes[k]] & 2:
        k -= 1
    if k - 2 < begin:
        return False
    return _is_w(codes[k]) and _is_w(codes[k - 1]) and _is_w(codes[k - 2])


@njit(cache=True, nogil=True)
def _is_w(code: int) -> bool:
    return code == 87 or code == 119


@njit(cache=True, nogil=True)
def link_spans(codes: Array, starts: Array, ends: Array, classes: Array, letters: Array) -> Array:
    """Finds the tokens that may hold a link of `clean_links_mapper`'s own pattern.

    No match of that pattern holds white space, `<` or `>`, and its only look around is a word
    boundary at its start; matching each token alone is therefore matching the text.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        classes: table, bit 0 for characters that no match holds, bit 1 for the colon and the dot.
        letters: table, bit 0 for [a-z] in any case, bit 1 for digits, bit 2 for [0-9%].

    Returns:
        int64 of shape (tokens, 4): row, start, end, 0.
    """
    spans = np.empty((64, 4), np.int64)
    n = 0
    for row in range(starts.size):
        begin = starts[row]  # the signs of a token are looked at before its bounds: most tokens hold no link
        end = ends[row]
        i = begin
        while i < end:
            if classes[codes[i]] & 2 and _is_link_prefix(codes, begin, end, i, letters):
                left = i
                while left > begin and not classes[codes[left - 1]] & 1:
                    left -= 1
                while i < end and not classes[codes[i]] & 1:
                    i += 1
                spans = append(spans, n, row, left, i, 0)
                n += 1
                begin = i
            i += 1
    return spans[:n].copy()


@njit(cache=True, nogil=True)
def email_spans(codes: Array, starts: Array, ends: Array, inside: Array) -> Array:
    """Finds the runs that may hold an address of `clean_email_mapper`'s own pattern.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        inside: table that is set for the characters that a match can hold.

    Returns:
        int64 of shape (runs, 4): row, start, end, 0; each run has an `@` with neighbours.
    """
    spans = np.empty((64, 4), np.int64)
    n = 0
    for row in range(starts.size):
        begin = starts[row]
        end = ends[row]
        if not _holds(codes[begin:end], _AT):
            continue
        i = begin
        while i < end:
            if codes[i] == _AT and i > begin and i + 1 < end and inside[codes[i - 1]] and inside[codes[i + 1]]:
                left = i
                while left > begin and inside[codes[left - 1]]:
                    left -= 1
                while i < end and inside[codes[i]]:
                    i += 1
                spans = append(spans, n, row, left, i, 0)
                n += 1
            i += 1
    return spans[:n].copy()


@njit(cache=True, nogil=True)
def _holds(codes: Array, wanted: int) -> bool:
    """Whether a code is among others; looks at all of them, which is done for several at once."""
    found = False
    for code in codes:
        found |= code == wanted
    return found


@njit(cache=True, nogil=True)
def ip_spans(codes: Array, starts: Array, ends: Array, classes: Array) -> Array:
    """Finds the runs that may hold an address of `clean_ip_mapper`'s own pattern.

    Such an address has three dots after digits or seven colons after hexadecimal digits.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        classes: table, bit 0 for the characters that a match can hold, bit 1 for digits of any kind.

    Returns:
        int64 of shape (runs, 4): row, start, end, 0.
    """
    spans = np.empty((64, 4), np.int64)
    n = 0
    for row in range(starts.size):
        i = starts[row]
        end = ends[row]
        while i < end:
            begin = i
            dots = 0
            colons = 0
            before = 0
            while i < end:
                current = classes[codes[i]]
                if not current:
                    break
                if before & 2:
                    dots += codes[i] == _DOT
                    colons += codes[i] == _COLON
                before = current
                i += 1
            if dots >= 3 or colons >= 7:
                spans = append(spans, n, row, begin, i, 0)
                n += 1
            i += 1
    return spans[:n].copy()


@njit(cache=True, nogil=True)
def append(spans: Array, n: int, row: int, start: int, end: int, reason: int) -> Array:
    """Writes a span at index `n`, in a larger array when it is full; returns the array."""
    if n == spans.shape[0]:
        larger = np.empty((2 * n, 4), np.int64)
        for i in range(n):  # numba compiles a loop ten times faster than a slice assignment
            for k in range(4):
                larger[i, k] = spans[i, k]
        spans = larger
    spans[n, 0] = row
    spans[n, 1] = start
    spans[n, 2] = end
    spans[n, 3] = reason
    return spans


@njit(cache=True, nogil=True)
def suspect_segments(codes: Array, starts: Array, ends: Array, classes: Array, max_length: int) -> Array:
    """Finds the segments that `ftfy.fix_text` might change; see `fix_unicode_mapper`.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        classes: table of the classes above.
        max_length: length at which ftfy cuts a line.

    Returns:
        int64 of shape (segments, 4): row, start, end, and the classes that are the reason, to which
        `MARKUP` is added where ftfy leaves entities alone.
    """
    spans = np.empty((64, 4), np.int64)
    n = 0
    for row in range(starts.size):
        begin = starts[row]
        end = ends[row]
        markup = 0
        while begin < end:
            stop, seen = _segment(codes, begin, end, classes, max_length)
            markup |= seen & MARKUP
            seen &= ~(ENTITY | MARKUP) if markup else ~MARKUP
            if seen:
                spans = append(spans, n, row, begin, stop, seen | markup)
                n += 1
            begin = stop
    return spans[:n].copy()


@njit(cache=True, nogil=True)
def _segment(codes: Array, begin: int, end: int, classes: Array, max_length: int) -> tuple[int, int]:
    """Where the segment that starts at `begin` ends, and the reasons for looking at it."""
    seen = 0
    previous = 0
    limit = min(end, begin + max_length)
    for i in range(begin, limit):
        current = int(classes[codes[i]])
        if current == 0:  # most signs
            previous = 0
            continue
        if current == LINE_END:
            return i + 1, seen
        if current == ENTITY:
            if i + 1 < end and _may_start_entity(codes[i + 1]):
                seen |= ENTITY
        else:
            seen |= current & (SIMPLE | COMPLEX | MARKUP | SUSPECT | COMPOSES)
            if current & (WEAK | STRONG) and previous & (WEAK | STRONG) and (previous | current) & STRONG:
                seen |= SUSPECT
        previous = current
    return limit, seen


@njit(cache=True, nogil=True)
def _may_start_entity(code: int) -> bool:
    """[#0-9A-Za-z]."""
    return code == 35 or 48 <= code <= 57 or 65 <= code <= 90 or 97 <= code <= 122


@njit(cache=True, nogil=True)
def rewrite(codes: Array, spans: Array, table: Array) -> tuple[Array, Array, Array]:
    """Replaces code points by those of a table and turns CRLF and CR into LF.

    Args:
        codes: code points.
        spans: int64 of shape (n, 4), as `suspect_segments` returns them.
        table: uint32, the replacement of each code point, or `DROPPED`.

    Returns:
        the new code points (uint32) and where each span's start and end (int64).
    """
    total = 0
    for k in range(spans.shape[0]):
        total += spans[k, 2] - spans[k, 1]
    out = np.empty(total, np.uint32)
    starts = np.empty(spans.shape[0], np.int64)
    ends = np.empty(spans.shape[0], np.int64)
    n = 0
    for k in range(spans.shape[0]):
        starts[k] = n
        for i in range(spans[k, 1], spans[k, 2]):
            if codes[i] == _CARRIAGE_RETURN and i + 1 < spans[k, 2] and codes[i + 1] == _NEWLINE:
                continue
            code = table[codes[i]]
            if code != DROPPED:
                out[n] = code
                n += 1
        ends[k] = n
    return out[:n].copy(), starts, ends
