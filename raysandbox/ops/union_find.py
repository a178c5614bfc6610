"""Groups of duplicates, compiled. The first row of a group is its root: the one that stays.

Importing this module imports numba, so operators import it inside the function that decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numba import njit

__all__ = ["originals_of_linked", "originals_of_near"]

Array = np.ndarray[Any, Any]

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_EMPTY = -1


@njit(cache=True, nogil=True)
def _new_table(count: int) -> Array:
    """A hash table for up to `count` rows: the index of a row in each slot, or `_EMPTY`."""
    size = 16
    while size < 2 * count:
        size *= 2
    return np.full(size, _EMPTY, np.int64)


@njit(cache=True, nogil=True)
def _root(parents: Array, row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@njit(cache=True, nogil=True)
def _roots(parents: Array) -> Array:
    roots = np.empty_like(parents)
    for row in range(parents.size):
        roots[row] = _root(parents, row)
    return roots


@njit(cache=True, nogil=True)
def _unite(parents: Array, one: int, other: int) -> None:
    one, other = _root(parents, one), _root(parents, other)
    parents[max(one, other)] = min(one, other)


@njit(cache=True, nogil=True)
def originals_of_linked(bands: Array) -> Array:
    """Tells the first row of each row's group; rows with an equal value in a column are in one.

    Groups are transitive: a row that shares values with two groups makes them one.

    Args:
        bands: uint64 of shape (rows, columns).

    Returns:
        int64 per row.
    """
    rows, columns = bands.shape
    parents = np.arange(rows)
    table = _new_table(rows)
    mask = np.uint64(table.size - 1)
    for column in range(columns):
        table[:] = _EMPTY
        for row in range(rows):
            value = bands[row, column]
            slot = ((value ^ (value >> _SHIFT)) * _MIX >> _SHIFT) & mask
            while table[slot] != _EMPTY and bands[table[slot], column] != value:
                slot = (slot + np.uint64(1)) & mask
            if table[slot] == _EMPTY:
                table[slot] = row
            else:
                _unite(parents, int(table[slot]), row)
    return _roots(parents)


def originals_of_near(values: Array, blocks: int, distance: int) -> Array:
    """Tells the first row of each row's group; rows whose values differ in few bits are in one.

    Groups are transitive. Two values that differ in at most `distance` bits agree in all but
    `distance` of the `blocks` parts of their bits: for each choice of the other parts, only values
    that agree in them are compared (Manku, Jain, Das Sarma 2007, "Detecting near-duplicates for web
    crawling"). The result does not depend on `blocks`, the time does.

    Args:
        values: uint64 per row.
        blocks: parts that the 64 bits are cut into, more than `distance`.
        distance: most bits that two values of a pair differ in.

    Returns:
        int64 per row.
    """
    distinct, firsts, numbers = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(firsts)  # so that the first row of a group is its root
    places = np.argsort(order)
    distinct, firsts = distinct[order], firsts[order]
    parents = np.arange(distinct.size)
    for mask in _masks(blocks, blocks - distance):
        masked = distinct & mask
        order = np.argsort(masked)
        _unite_near(distinct, masked, order, distance, parents)
    return firsts[_roots(parents)][places][numbers]


def _masks(blocks: int, chosen: int) -> Iterator[np.uint64]:
    """The bits of every choice of so many of the blocks."""
    edges = [64 * block // blocks for block in range(blocks + 1)]
    parts = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    for choice in combinations(parts, chosen):
        yield np.uint64(sum(choice))


@njit(cache=True, nogil=True)
def _unite_near(values: Array, masked: Array, order: Array, distance: int, parents: Array) -> None:
    for i in range(order.size):
        one = order[i]
        for j in range(i + 1, order.size):
            other = order[j]
            if masked[other] != masked[one]:
                break
            if _bits(np.uint64(values[one] ^ values[other])) <= distance:
                _unite(parents, one, other)


@njit(cache=True, nogil=True)
def _bits(value: np.uint64) -> int:
    """Number of bits that are set."""
    count = 0
    while value:
        value &= value - np.uint64(1)
        count += 1
    return count
