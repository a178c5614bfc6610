"""Which rows filters keep at each of many candidate thresholds, computed when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from raysandbox.ops.arrays import numpy_of
from raysandbox.ops.base import Filter, Stat
from raysandbox.refine._bounds import Side, bounds_of, clamped, outwards, takes_fractions

__all__ = ["Bound", "Grid", "MeasuredFilter", "State", "bounds_on", "numbers_of"]

_LEVELS = 40  # quantiles of a statistic that are tried as cuts
_DIGITS = 6  # significant, of a bound that is not whole

_OPEN: Mapping[Side, float] = {"lower": -math.inf, "upper": math.inf}

State = tuple[int, ...]  # of each bound which of its cuts is set


@dataclass(frozen=True)
class MeasuredFilter:
    """A filter of the recipe and its statistics of the rows with feedback.

    Attributes:
        position: index in the recipe's `process`.
        filter: the filter as the recipe configures it.
        stats: its statistics, one value (or list of values) per row.
    """

    position: int
    filter: Filter
    stats: Mapping[str, pa.Array]


@dataclass(frozen=True)
class Bound:
    """One argument of one filter and the values that it may take.

    Attributes:
        owner: index of its filter in the grid.
        argument: its name.
        side: which side of the statistics it bounds.
        keys: the statistics.
        cuts: values from the loosest to the tightest, the recipe's own among them.
        old: index of the recipe's own value.
    """

    owner: int
    argument: str
    side: Side
    keys: tuple[str, ...]
    cuts: tuple[float, ...]
    old: int


@dataclass
class Grid:
    """The rows that each filter keeps at each cut of its bounds.

    What a filter keeps is always asked of `Filter.keep`, so that missing values, open intervals and
    several files per row count as in a run of the recipe. It is monotone in every bound: of nested
    sets the number of cuts that keep a row says all.

    Attributes:
        filters: the recipe's filters.
        bounds: what may be moved.
        num_rows: number of rows with feedback.
    """

    filters: Sequence[MeasuredFilter]
    bounds: Sequence[Bound]
    num_rows: int
    _depths: dict[tuple[int, tuple[tuple[int, int], ...]], np.ndarray] = field(default_factory=dict)

    @property
    def old(self) -> State:
        """The recipe as it is."""
        return tuple(bound.old for bound in self.bounds)

    def depths(self, index: int, state: State) -> np.ndarray:
        """For each row (uint8) by how many cuts of a bound its filter keeps it.

        The filter's other bounds are open where each decides by itself, else as in `state`.
        """
        owner = self.bounds[index].owner
        beside = self._beside(index)
        alone = self._decides_alone(owner)
        others = () if alone else tuple((i, state[i]) for i in beside)
        if (index, others) not in self._depths:
            measured, bound = self.filters[owner], self.bounds[index]
            fixed: dict[str, float] = {self.bounds[i].argument: self.bounds[i].cuts[cut] for i, cut in others}
            if alone:
                fixed = {self.bounds[i].argument: _OPEN[self.bounds[i].side] for i in beside}
            depths = np.zeros(self.num_rows, np.uint8)
            for cut in bound.cuts:
                # Not validated: a cut is a number of the field's kind, and this is done often.
                depths += measured.filter.model_copy(update={**fixed, bound.argument: cut}).keep(measured.stats)
            self._depths[index, others] = depths
        return self._depths[index, others]

    def kept(self, state: State, *, without: int | None = None) -> np.ndarray:
        """Which rows (bool) all filters keep.

        Args:
            state: the cut of each bound.
            without: index of a bound to leave out, whose `depths` say what it keeps.
        """
        kept = np.ones(self.num_rows, bool)
        for owner, measured in enumerate(self.filters):
            mine = [i for i, bound in enumerate(self.bounds) if bound.owner == owner]
            if not mine:
                kept &= measured.filter.keep(measured.stats)
            elif self._decides_alone(owner):
                for i in mine:
                    if i != without:
                        kept &= self.depths(i, state) > state[i]
            elif without not in mine:
                kept &= self.depths(mine[0], state) > state[mine[0]]
        return kept

    def _decides_alone(self, owner: int) -> bool:
        """Whether a row stays when it is within each bound: so it is unless the filter decides in its own way."""
        return type(self.filters[owner].filter).keep is Filter.keep

    def _beside(self, index: int) -> list[int]:
        """The other bounds of the same filter."""
        owner = self.bounds[index].owner
        return [i for i, bound in enumerate(self.bounds) if bound.owner == owner and i != index]


def bounds_on(owner: int, measured: MeasuredFilter) -> list[Bound]:
    """The bounds of a filter that may be moved; none where its statistics are no numbers or all the same."""
    found = []
    for argument, side, stats in bounds_of(measured.filter.statistics()):
        old = _number(getattr(measured.filter, argument), side)
        values = [numbers_of(measured.stats[stat.key]) for stat in stats]
        if old is None or not any(len(np.unique(each)) > 1 for each in values):
            continue
        whole = [_is_whole(measured.filter, argument, stat) for stat in stats]
        cuts = {
            _cut(float(value), side, stat, whole=integer)
            for stat, each, integer in zip(stats, values, whole, strict=True)
            for value in _levels(each, side)
        }
        ordered = sorted({*cuts, old}, reverse=side == "upper")
        keys = tuple(stat.key for stat in stats)
        found.append(Bound(owner, argument, side, keys, tuple(ordered), ordered.index(old)))
    return found


def numbers_of(values: pa.Array) -> np.ndarray:
    """The finite numbers (float64) of a statistic, those of lists one after the other; none of a text."""
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return np.zeros(0)
    numbers = numpy_of(values).astype(np.float64)
    return numbers[np.isfinite(numbers)]


def _number(value: object, side: Side) -> float | None:
    """A bound as a number: one that is not set bounds nothing; None for one that is no number."""
    if value is None:
        return _OPEN[side]
    return value if isinstance(value, int | float) else None


def _is_whole(operator: Filter, argument: str, stat: Stat) -> bool:
    return stat.integer or not takes_fractions(type(operator), argument)


def _levels(values: np.ndarray, side: Side) -> np.ndarray:
    """Values of a statistic as cuts: all of few, else quantiles that are values of rows; ascending."""
    distinct = np.unique(values)
    if len(distinct) <= _LEVELS:
        return distinct
    fractions = np.arange(_LEVELS) / _LEVELS
    if side == "lower":
        return np.unique(np.quantile(values, fractions, method="lower"))
    return np.unique(np.quantile(values, 1 - fractions, method="higher"))


def _cut(value: float, side: Side, stat: Stat, *, whole: bool) -> float:
    """The bound at a value, rounded such that the value stays inside."""
    if not whole and value != 0:
        unit = 10.0 ** (math.floor(math.log10(abs(value))) + 1 - _DIGITS)
        rounded = float(f"{outwards(value / unit, side, whole=True) * unit:.{_DIGITS}g}")
        inside = rounded <= value if side == "lower" else rounded >= value
        return clamped(rounded if inside else value, stat, whole=False)
    return clamped(outwards(value, side, whole=whole), stat, whole=whole)
