"""Axes of parameters and metrics: where a value lies between 0 and 1, and what the axis says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Column", "category_column", "number_column", "show_value"]

_TICKS = 6  # at most about as many on an axis of numbers
_CATEGORY_TICKS = 16
_BUNDLE = 0.06  # how wide the lines of one category are spread


def show_value(value: Any) -> str:
    """A parameter's value as a person reads it: as YAML writes it, four significant digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


@dataclass(frozen=True)
class Column:
    """An axis.

    Attributes:
        name: of what it shows.
        label: the same, shortened.
        scale: "linear", "log" or "categories".
        low: smallest value; of categories 0.
        high: largest value; of categories the index of the last.
        categories: texts of the categories, in order.
        ordered: whether the categories are numbers.
    """

    name: str
    label: str
    scale: str
    low: float
    high: float
    categories: tuple[str, ...] = ()
    ordered: bool = False

    def position(self, value: Any) -> float | None:
        """Where a value lies: 0 at the low end, 1 at the high end; None for one that it cannot show."""
        if self.scale == "categories":
            text = show_value(value)
            return self._share_of_category(self.categories.index(text)) if text in self.categories else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if self.scale == "log" and value <= 0:
            return None
        return self._share(float(value))

    def place(self, value: Any, end: float | None) -> float | None:
        """Where a trial's line crosses the axis: at the value's position.

        Lines through one category lie side by side, in the order of where they end on the metric's axis.

        Args:
            value: of the parameter.
            end: position of the metric, None for a trial that has none.
        """
        position = self.position(value)
        if position is None or self.scale != "categories" or end is None:
            return position
        return position + (end - 0.5) * min(_BUNDLE, 0.5 / len(self.categories))

    def ticks(self) -> list[tuple[float, str]]:
        """Positions of marks and their texts."""
        if self.scale == "categories":
            every = math.ceil(len(self.categories) / _CATEGORY_TICKS)
            return [(self._share_of_category(i), text) for i, text in enumerate(self.categories) if i % every == 0]
        values = _log_ticks(self.low, self.high) if self.scale == "log" else _linear_ticks(self.low, self.high)
        return [(self._share(value), f"{value:.6g}") for value in values]

    def _share_of_category(self, index: int) -> float:
        """Leaves room for the lines of the first and the last category to lie side by side."""
        return _BUNDLE / 2 + (1 - _BUNDLE) * self._share(float(index))

    def _share(self, value: float) -> float:
        low, high = self.low, self.high
        if self.scale == "log":
            low, high, value = math.log(low), math.log(high), math.log(value)
        return 0.5 if high == low else (value - low) / (high - low)


def number_column(name: str, label: str, values: Sequence[float], *, scale: str) -> Column:
    """An axis of numbers that spans the values; from 0 to 1 where there are none."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return Column(name, label, scale if low > 0 else "linear", float(low), float(high))


def category_column(name: str, label: str, values: Iterable[Any]) -> Column:
    """An axis of categories in the order given; numbers are sorted."""
    distinct = list({show_value(value): value for value in values}.values())
    ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    if ordered:
        distinct.sort()
    last = float(max(len(distinct) - 1, 0))
    return Column(name, label, "categories", 0.0, last, tuple(map(show_value, distinct)), ordered)


def _linear_ticks(low: float, high: float) -> list[float]:
    if high == low:
        return [low]
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them on a short axis."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(inside) > 2:
            return inside[:: math.ceil(len(inside) / (2 * _TICKS))]
    return _linear_ticks(low, high)
