"""Compiled loops over lines, for `remove_table_text_mapper`; see `kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from raysandbox.ops.span_kernels import append

__all__ = ["table_lines"]

Array = np.ndarray[Any, Any]

_TAB, _NEWLINE, _SPACE, _BAR = 9, 10, 32, 124


@njit(cache=True, nogil=True)
def _separators(codes: Array, start: int, end: int, spaces: Array) -> tuple[int, int]:
    """Fewest and most separators (space, tab or bar) that split a line into non-empty cells.

    Spaces and tabs must separate, bars may; any number between the two is possible. The most is
    less than the fewest if the line cannot be split.
    """
    blanks = 0
    bars = 0
    last = start - 1  # the last separator
    for i in range(start, end):
        code = codes[i]
        if spaces[code]:
            if (code != _SPACE and code != _TAB) or i == last + 1 or i + 1 == end:
                return 1, 0
            blanks += 1
            last = i
        elif code == _BAR and i > last + 1 and i + 1 < end and not spaces[codes[i + 1]]:
            bars += 1
            last = i
    return blanks, blanks + bars


@njit(cache=True, nogil=True)
def _read_lines(codes: Array, start: int, end: int, spaces: Array, lines: Array) -> int:
    """Writes start, end (after the newlines), fewest and most separators of lines; returns their number.

    Lines without text, the first line and a line that no newline ends are left out.
    """
    count = 0
    i = start
    while i < end and codes[i] != _NEWLINE:
        i += 1
    while True:
        while i < end and codes[i] == _NEWLINE:
            i += 1
        if count:
            lines[count - 1, 1] = i
        begin = i
        while i < end and codes[i] != _NEWLINE:
            i += 1
        if i == end:
            return count
        fewest, most = _separators(codes, begin, i, spaces)
        lines[count, 0] = begin
        lines[count, 2] = fewest
        lines[count, 3] = most
        count += 1


@njit(cache=True, nogil=True)
def _remove_tables(lines: Array, count: int, separators: int, removed: Array) -> None:
    """Removes runs of at least two lines with this number of separators, among those that are left."""
    first = -1  # of the run
    size = 0
    last = -1
    for line in range(count + 1):
        if line < count and removed[line]:
            continue
        if line < count and lines[line, 2] <= separators <= lines[line, 3]:
            if size == 0:
                first = line
            last = line
            size += 1
            continue
        if size > 1:
            for k in range(first, last + 1):
                removed[k] = True
        size = 0


@njit(cache=True, nogil=True)
def table_lines(codes: Array, starts: Array, ends: Array, spaces: Array, fewest: int, most: int) -> Array:
    """Finds the lines of tables: for each number of separators in turn, runs of lines that have it.

    Args:
        codes: code points.
        starts: where each row starts.
        ends: where each row ends.
        spaces: table of white space.
        fewest: smallest number of separators.
        most: largest number of separators.

    Returns:
        int64 of shape (lines, 4): row, start, end after the newlines, 0.
    """
    capacity = 0
    for row in range(starts.size):
        newlines = 0
        for i in range(starts[row], ends[row]):
            newlines += codes[i] == _NEWLINE
        capacity = max(capacity, newlines)
    lines = np.empty((capacity, 4), np.int64)
    removed = np.empty(capacity, np.bool_)
    spans = np.empty((64, 4), np.int64)
    n = 0
    for row in range(starts.size):
        count = _read_lines(codes, starts[row], ends[row], spaces, lines)
        for line in range(count):
            removed[line] = False
        for separators in range(fewest, most + 1):
            _remove_tables(lines, count, separators, removed)
        for line in range(count):
            if removed[line]:
                spans = append(spans, n, row, lines[line, 0], lines[line, 1], 0)
                n += 1
    return spans[:n].copy()
