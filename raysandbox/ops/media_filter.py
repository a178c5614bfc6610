"""Filters of images, videos and sounds: a row has several of them, a statistic one value for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.ops.base import Filter

__all__ = ["MediaFilter", "integers", "numbers"]

T = TypeVar("T")


class MediaFilter(Filter):
    """Keeps rows by statistics of the files that they name.

    `compute` returns a list of values per row for every statistic, one value per file. A row whose
    list is empty (it names no file) stays, as in Data-Juicer.
    """

    extras: ClassVar[tuple[str, ...]] = ("media",)
    reads: ClassVar[tuple[str, ...]] = ()

    any_or_all: Literal["any", "all"] = Field(
        "any", description="whether one file within bounds is enough for the row, or all must be"
    )

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """Which files must be within bounds does not change their statistics."""
        return super().thresholds() | {"any_or_all"}

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether any, or all, of its files lie within every bound."""
        columns = [stats[stat.key] for stat in self.statistics()]
        lengths = columns[0].value_lengths().fill_null(0).to_numpy()
        verdicts = [
            self._within(stat, values.flatten()) for stat, values in zip(self.statistics(), columns, strict=True)
        ]
        inside = np.logical_and.reduce(verdicts)
        kept = np.zeros(len(lengths), np.int64)
        np.add.at(kept, np.repeat(np.arange(len(lengths)), lengths), inside)
        enough = kept > 0 if self.any_or_all == "any" else kept == lengths
        return enough | (lengths == 0)


def numbers(rows: Sequence[Sequence[T]], value: Callable[[T], float]) -> pa.Array:
    """A statistic with one float per file."""
    return pa.array([[value(item) for item in row] for row in rows], pa.list_(pa.float64()))


def integers(rows: Sequence[Sequence[T]], value: Callable[[T], int]) -> pa.Array:
    """A statistic with one integer per file."""
    return pa.array([[value(item) for item in row] for row in rows], pa.list_(pa.int64()))
