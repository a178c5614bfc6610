"""Describes the statistics of a data set: moments, percentiles, histograms, correlations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

__all__ = ["Analysis", "Correlation", "Histogram", "NumericSummary", "TextSummary", "summarise"]

_MAX_BINS = 50
_TOP_VALUES = 10
# A positive statistic gets bins of equal ratio when it spans this many times its smallest value
# and half of its values would fall into this share of bins of equal width.
_LOG_SPAN = 100.0
_LOG_CROWDING = 0.1


@dataclass(frozen=True)
class Histogram:
    """Number of values per bin; bin i is [edges[i], edges[i + 1]), the last one closed.

    Attributes:
        counts: one per bin.
        edges: one more than bins, ascending.
        scale: whether bins have equal width or equal ratio.
    """

    counts: tuple[int, ...]
    edges: tuple[float, ...]
    scale: Literal["linear", "log"]


@dataclass(frozen=True)
class NumericSummary:
    """One statistic of numbers. What cannot be computed is None.

    Attributes:
        count: values that are finite numbers; lists count with each of their elements.
        missing: nulls, NaN and infinities.
        std: sample standard deviation (divided by count - 1).
        percentiles: one for each of the analysis's percentiles, interpolated linearly.
    """

    count: int
    missing: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    percentiles: tuple[float | None, ...]
    histogram: Histogram | None


@dataclass(frozen=True)
class TextSummary:
    """One statistic of strings.

    Attributes:
        count: values that are present.
        missing: nulls.
        distinct: number of different values.
        top: the most frequent values and how often they occur; ties in alphabetical order.
    """

    count: int
    missing: int
    distinct: int
    top: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Correlation:
    """Correlations of statistics that have one number per row, over rows where both are present.

    Attributes:
        names: rows and columns of the matrices.
        pearson: linear correlation; None where one side is constant or has fewer than two rows.
        spearman: the same of the ranks, equal values sharing their mean rank.
    """

    names: tuple[str, ...]
    pearson: tuple[tuple[float | None, ...], ...]
    spearman: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Analysis:
    """Everything that is known about a table of statistics.

    Attributes:
        rows: number of data rows.
        percentiles: which percentiles the summaries hold, as fractions.
        numeric: name → summary, in the order of the table.
        text: name → summary, in the order of the table.
        correlation: between the numeric statistics.
        ignored: statistics that are neither numbers nor strings nor lists of them.
    """

    rows: int
    percentiles: tuple[float, ...]
    numeric: Mapping[str, NumericSummary]
    text: Mapping[str, TextSummary]
    correlation: Correlation
    ignored: tuple[str, ...] = ()

    def to_json(self) -> str:
        """JSON from which `from_json` makes an equal analysis."""
        return _ADAPTER.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str) -> Analysis:
        """Reads `to_json`. Raises pydantic's ValidationError when it is something else."""
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(Analysis)


def summarise(stats: pa.Table, percentiles: Sequence[float] = (0.25, 0.5, 0.75)) -> Analysis:
    """Summarises every statistic of a table.

    Columns are made contiguous first, so the result does not depend on how the table is chunked.

    Args:
        stats: one column per statistic, one row per data row; numbers, booleans, strings, or lists
            of these, which are flattened.
        percentiles: fractions between 0 and 1.
    """
    numeric: dict[str, NumericSummary] = {}
    text: dict[str, TextSummary] = {}
    scalars: dict[str, np.ndarray] = {}
    ignored = []
    for name in stats.column_names:
        values, missing_lists = _flattened(stats.column(name).combine_chunks())
        if _is_text(values.type):
            text[name] = _summarise_text(values, missing_lists)
        elif _is_numeric(values.type):
            numbers = _numbers(values)
            numeric[name] = _summarise_numbers(numbers, missing_lists, percentiles)
            if not _is_list(stats.schema.field(name).type):
                scalars[name] = numbers
        else:
            ignored.append(name)
    correlation = _correlations(scalars)
    return Analysis(stats.num_rows, tuple(percentiles), numeric, text, correlation, tuple(ignored))


def _flattened(values: pa.Array) -> tuple[pa.Array, int]:
    """Elements of (nested) lists, and how many lists are null."""
    missing = 0
    while _is_list(values.type):
        missing += values.null_count
        values = values.flatten()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values, missing


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    """A column of nulls only has no type; it is a number that is always missing."""
    return (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )


def _numbers(values: pa.Array) -> np.ndarray:
    """float64 with NaN for everything that is no finite number."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _summarise_text(values: pa.Array, missing_lists: int) -> TextSummary:
    frequency = Counter({entry["values"]: entry["counts"] for entry in values.drop_null().value_counts().to_pylist()})
    top = sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:_TOP_VALUES]
    return TextSummary(
        count=len(values) - values.null_count,
        missing=values.null_count + missing_lists,
        distinct=len(frequency),
        top=tuple(top),
    )


def _summarise_numbers(numbers: np.ndarray, missing_lists: int, percentiles: Sequence[float]) -> NumericSummary:
    present = numbers[~np.isnan(numbers)]
    missing = len(numbers) - len(present) + missing_lists
    if not len(present):
        return NumericSummary(0, missing, None, None, None, None, (None,) * len(percentiles), None)
    low, high = float(np.min(present)), float(np.max(present))
    # The mean of equal values may be rounded to another one, and a bound at it would drop them all.
    mean, std = (low, 0.0) if low == high else (float(np.mean(present)), float(np.std(present, ddof=1)))
    return NumericSummary(
        count=len(present),
        missing=missing,
        mean=mean,
        std=std if len(present) > 1 else None,
        min=low,
        max=high,
        percentiles=tuple(float(value) for value in np.quantile(present, percentiles)),
        histogram=_histogram(present),
    )


def _histogram(values: np.ndarray) -> Histogram:
    edges, scale = _bin_edges(values)
    counts, _ = np.histogram(values, edges)
    return Histogram(tuple(counts.tolist()), tuple(edges.tolist()), scale)


def _bin_edges(values: np.ndarray) -> tuple[np.ndarray, Literal["linear", "log"]]:
    low, high = float(np.min(values)), float(np.max(values))
    bins = int(np.clip(2 * np.cbrt(len(values)), 10, _MAX_BINS))  # Rice's rule
    whole = max(-low, high) < 2**51 and bool(np.all(values == np.rint(values)))
    if whole and high - low < _MAX_BINS:
        return np.arange(low - 0.5, high + 1.0), "linear"
    if low > 0 and high / low >= _LOG_SPAN and np.median(values) - low < _LOG_CROWDING * (high - low):
        if whole:
            return np.unique(np.rint(np.geomspace(low, high + 1, bins + 1))) - 0.5, "log"
        return np.geomspace(low, high, bins + 1), "log"
    if whole:
        # Bins that hold unequally many whole numbers show teeth that the data do not have.
        width = np.ceil((high - low + 1) / bins)
        return np.arange(low - 0.5, high + width, width), "linear"
    edges = np.linspace(low, high, bins + 1)
    if np.all(np.diff(edges) > 0):
        return edges, "linear"
    return np.array([low, np.nextafter(high, np.inf)]), "linear"  # too narrow to be divided


def _correlations(columns: Mapping[str, np.ndarray]) -> Correlation:
    names = tuple(columns)
    present = {name: ~np.isnan(values) for name, values in columns.items()}
    complete_ranks = {name: _ranks(columns[name][present[name]]) for name in names}
    pearson: dict[tuple[str, str], float | None] = {}
    spearman: dict[tuple[str, str], float | None] = {}
    for index, first in enumerate(names):
        for second in names[index:]:
            both = present[first] & present[second]
            left, right = columns[first][both], columns[second][both]
            pearson[first, second] = pearson[second, first] = _pearson(left, right)
            left, right = (
                complete_ranks[name] if len(part) == len(complete_ranks[name]) else _ranks(part)
                for name, part in ((first, left), (second, right))
            )
            spearman[first, second] = spearman[second, first] = _pearson(left, right)
    return Correlation(names, _matrix(names, pearson), _matrix(names, spearman))


def _matrix(names: Sequence[str], values: Mapping[tuple[str, str], Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(values[row, column] for column in names) for row in names)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group]


def _pearson(left: np.ndarray, right: np.ndarray) -> float | None:
    if len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    left, right = _standardised(left), _standardised(right)
    # Sums, not dot products: BLAS may add in another order from call to call.
    return float(np.clip(np.sum(left * right) / np.sqrt(np.sum(left * left) * np.sum(right * right)), -1.0, 1.0))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Centred and scaled to [-1, 1], so that no square under- or overflows."""
    centred = values - np.mean(values)
    return centred / np.max(np.abs(centred))
