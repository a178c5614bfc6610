"""Rows that are copies of one another: together they say no more than one of them does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysandbox.ops.arrays import numpy_of

__all__ = ["Copies"]

_BITS = 16  # of the feedback's mantissa: models score equal rows of different batches a little differently


@dataclass(frozen=True, eq=False)
class Copies:
    """Rows in groups of equal ones.

    Attributes:
        first: index of the first row of each group, ascending (int).
        of_row: number of each row's group (int).
        sizes: rows of each group (float64).
    """

    first: np.ndarray
    of_row: np.ndarray
    sizes: np.ndarray

    @classmethod
    def among(cls, feedback: np.ndarray, stats: Iterable[pa.Array]) -> Copies:
        """Groups rows that are equal in all their statistics and, but for rounding, in their feedback.

        Args:
            feedback: finite numbers, one per row (float64).
            stats: statistics, each of one value (or list of values) per row.
        """
        mantissa, exponent = np.frexp(feedback)
        codes = np.unique(np.ldexp(np.round(mantissa * 2**_BITS), exponent), return_inverse=True)[1]
        for values in stats:
            if codes.max(initial=-1) + 1 == len(codes):  # no two rows are alike
                break
            own = _codes(values)
            pairs = codes * (int(own.max(initial=0)) + 1) + own  # below the square of the number of rows
            codes = np.unique(pairs, return_inverse=True)[1]
        _, first, of_row, sizes = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return cls(first[order], rank[of_row], sizes[order].astype(np.float64))


def _codes(values: pa.Array) -> np.ndarray:
    """A number from 0 on per row, the same for equal values; a missing one is a value of its own."""
    if pa.types.is_nested(values.type):
        values = pa.array([None if each is None else repr(each) for each in values.to_pylist()], pa.string())
    indices = values.dictionary_encode().indices.cast(pa.int64())
    return numpy_of(indices.fill_null(-1)) + 1
