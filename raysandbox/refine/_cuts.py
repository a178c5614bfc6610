"""Thresholds that raise the mean of a number over the rows kept: found on some rows, measured on others.

Greedy fitting of cuts to noise always finds a "gain" on the rows that it looks at. Two things
stand against that. A bound moves only when the rows that it drops are worse than those that it
keeps by more than chance would make the worst of all cuts tried (Bonferroni). And what is reported
is measured on rows that had no part in the choice: the whole procedure is repeated on K - 1 of K
folds, and its thresholds are applied to the remaining one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from raysandbox.refine._grid import Grid, State

__all__ = ["Chooser", "Gain", "Rule", "gain_between"]

_PRICES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
_CLEARLY = 2.0  # standard errors by which a cut that drops more must be better

Worth = Callable[[np.ndarray, np.ndarray], np.ndarray]  # from sums and counts


@dataclass(frozen=True)
class Rule:
    """How cuts are chosen.

    Attributes:
        least: smallest share of the rows to keep.
        fewest: smallest number of rows to keep: the mean of a few says nothing.
        confidence: of the interval, and 1 - the chance that noise moves any bound on the rows it is chosen on.
        max_rounds: times that all bounds are gone through at one price.
        two_sided: whether both bounds of a statistic may move.
    """

    least: float
    fewest: int
    confidence: float
    max_rounds: int
    two_sided: bool

    def needed(self, rows: np.ndarray) -> float:
        """How many of some rows (bool) must be kept."""
        return max(self.least * float(rows.sum()), self.fewest)


@dataclass(frozen=True)
class Gain:
    """How much higher the mean is over one set of rows than over another, with its confidence interval."""

    before: float
    after: float
    value: float
    low: float
    high: float


def gain_between(utility: np.ndarray, old: np.ndarray, new: np.ndarray, folds: np.ndarray, confidence: float) -> Gain:
    """The difference of the means over two overlapping sets of rows, taken in each fold and averaged.

    Fold by fold, since the thresholds of one fold were chosen with the rows of the others. The variance
    within a fold is that of the linearised ratios (delta method): the mean over a set A of n rows is
    sum(a·u) / sum(a), whose influence of row i is a_i (u_i - mean_A) / (share of A).

    Args:
        utility: the higher, the better (float64, one per row).
        old: rows before (bool).
        new: rows after (bool).
        folds: number of each row's fold (int); those without rows before or after do not count.
        confidence: of the two-sided interval.
    """
    means, variances = [], []
    for fold in range(int(folds.max()) + 1):
        mine = folds == fold
        u, a, b = utility[mine], old[mine], new[mine]
        if a.any() and b.any():
            before, after = float(u[a].mean()), float(u[b].mean())
            influence = b * (u - after) / b.mean() - a * (u - before) / a.mean()
            means.append((before, after))
            variances.append(float(np.mean(influence**2)) / len(u))
    before, after = np.mean(means, axis=0).tolist()
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(sum(variances)) / len(variances)
    return Gain(before, after, after - before, after - before - reach, after - before + reach)


@dataclass(frozen=True)
class Chooser:
    """Chooses cuts of a grid by the utility of the rows that they keep.

    Attributes:
        grid: the cuts.
        utility: the higher, the better (float64, one per row).
        rule: how to choose.
    """

    grid: Grid
    utility: np.ndarray
    rule: Rule

    def choose(self, rows: np.ndarray, allowed: AbstractSet[int]) -> State:
        """The best cuts for some rows (bool); the recipe's own where none is beyond chance.

        Coordinate ascent on the sum over kept rows of utility - price, for prices from low to high:
        all bounds tighten together and share what may be dropped, instead of the first taking it all.
        Rows above the mean are never worth dropping, so prices end there. Then on the mean itself.
        """
        search = _Search(self, rows, self._loosened(rows, allowed))
        order = search.promising(allowed)
        if not order:
            return self.grid.old
        kept = self.utility[rows & self.grid.kept(search.start)]
        for price in np.quantile(kept[kept <= kept.mean()], _PRICES):
            search.ascend(order, lambda sums, counts, price=price: sums - price * counts)
        search.ascend(order, lambda sums, counts: sums / np.maximum(counts, 1), sparing=True)
        return search.state if self._mean(rows, search.state) > self._mean(rows, self.grid.old) else self.grid.old

    def held_out(self, folds: np.ndarray, allowed: AbstractSet[int]) -> tuple[np.ndarray, list[State]]:
        """The rows (bool) kept by thresholds chosen without them, and the thresholds of each fold.

        Args:
            folds: number of each row's fold (int).
            allowed: bounds that may move.
        """
        kept = np.zeros(self.grid.num_rows, bool)
        states = []
        for fold in range(int(folds.max()) + 1):
            states.append(self.choose(folds != fold, allowed))
            kept |= self.grid.kept(states[-1]) & (folds == fold)
        return kept, states

    def _mean(self, rows: np.ndarray, state: State) -> float:
        kept = rows & self.grid.kept(state)
        return float(self.utility[kept].mean()) if kept.any() else -math.inf

    def _loosened(self, rows: np.ndarray, allowed: AbstractSet[int]) -> State:
        """The recipe's own cuts, or looser ones where these keep fewer rows than wanted.

        One bound after the other is loosened, the one that brings back most rows first, no further than needed.
        """
        state, needed = self.grid.old, self.rule.needed(rows)
        while (rows & self.grid.kept(state)).sum() < needed:
            options = []
            for index in allowed:
                counts, _ = profile(self.grid, index, state, rows, self.utility)
                enough = np.flatnonzero(counts >= needed)
                cut = int(enough[-1]) if len(enough) else 0
                options.append((min(counts[cut], needed), -abs(cut - state[index]), -index, cut))
            best = max(options, default=(0, 0, 0, 0))
            if not options or best[0] <= (rows & self.grid.kept(state)).sum():
                return state
            state = _with(state, -best[2], best[3])
        return state


@dataclass
class _Search:
    """One choice on its way."""

    chooser: Chooser
    rows: np.ndarray
    start: State

    def __post_init__(self) -> None:
        self.state = self.start
        self._needed = self.chooser.rule.needed(self.rows)
        kept = self.chooser.utility[self.rows & self.chooser.grid.kept(self.start)]
        self._spread = float(kept.std()) if len(kept) else 0.0

    @property
    def gate(self) -> float:
        """How many standard errors a cut must stand out: the best of all that are tried would by chance not."""
        tried = sum(len(bound.cuts) for bound in self.chooser.grid.bounds)
        return NormalDist().inv_cdf(1 - (1 - self.chooser.rule.confidence) / max(tried, 2))

    def promising(self, allowed: AbstractSet[int]) -> list[int]:
        """The bounds with a cut beyond chance, the clearest first; empty when there is none."""
        if self._spread == 0:
            return []
        best = {index: float(self._evidence(index, *self._profile(index)).max()) for index in sorted(allowed)}
        if max(best.values(), default=0.0) < self.gate:
            return []
        return sorted(best, key=lambda index: -best[index])

    def ascend(self, order: list[int], worth: Worth, *, sparing: bool = False) -> None:
        """Moves one bound at a time to its best cut until none moves.

        Args:
            order: the bounds.
            worth: what to maximise.
            sparing: take the loosest cut that is not clearly worse than the best.
        """
        for _ in range(self.chooser.rule.max_rounds):
            before = self.state
            for index in order:
                self.state = _with(self.state, index, self._best(index, worth, sparing))
            if self.state == before:
                return

    def _best(self, index: int, worth: Worth, sparing: bool) -> int:
        counts, sums = self._profile(index)
        current, start = self.state[index], self.start[index]
        possible = (counts >= self._needed) & (self._evidence(index, counts, sums) >= self.gate)
        if self._other_side_moved(index):
            possible[:] = False
        possible[start] = counts[start] >= self._needed
        if not possible.any():
            return current
        values = np.where(possible, worth(sums, counts), -math.inf)
        best = int(np.argmax(values))
        if sparing:
            return int(np.flatnonzero(possible & (self._tightening_pays(best, counts, sums) < _CLEARLY))[0])
        return current if possible[current] and values[current] >= values[best] else best

    def _profile(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return profile(self.chooser.grid, index, self.state, self.rows, self.chooser.utility)

    def _evidence(self, index: int, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Of each cut how sure it is that it is better than the one at the start, in standard errors."""
        start = self.start[index]
        tighter = np.arange(len(counts)) > start
        pays = self._tightening_pays(start, counts, sums)
        return np.where(counts == counts[start], -math.inf, np.where(tighter, pays, -pays))

    def _tightening_pays(self, cut: int, counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Of each cut how sure it is that of it and another the tighter one is better, in standard errors.

        Two-sample z between the rows that both keep and those that only the looser one keeps; 0 where
        there are none of either.
        """
        tighter = np.arange(len(counts)) > cut
        few, many = np.minimum(counts, counts[cut]), np.maximum(counts, counts[cut])
        of_few, of_many = np.where(tighter, sums, sums[cut]), np.where(tighter, sums[cut], sums)
        between = many - few
        some = (between > 0) & (few > 0)
        few, between = np.where(some, few, 1), np.where(some, between, 1)
        difference = of_few / few - (of_many - of_few) / between
        return np.where(some, difference / (self._spread * np.sqrt(1 / between + 1 / few)), 0.0)

    def _other_side_moved(self, index: int) -> bool:
        """Whether the other bound of a statistic has moved, where only one may."""
        if self.chooser.rule.two_sided:
            return False
        bounds = self.chooser.grid.bounds
        return any(
            self.state[i] != self.start[i]
            for i, bound in enumerate(bounds)
            if i != index and bound.owner == bounds[index].owner and bound.keys == bounds[index].keys
        )


def profile(
    grid: Grid, index: int, state: State, rows: np.ndarray, utility: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number and summed utility of the rows that would be kept at each cut of a bound, the others as they are.

    Returns:
        two arrays of one value per cut, from the loosest to the tightest.
    """
    others = rows & grid.kept(state, without=index)
    depths = grid.depths(index, state)[others]
    size = len(grid.bounds[index].cuts) + 1
    counts = np.bincount(depths, minlength=size)[::-1].cumsum()[::-1][1:]
    sums = np.bincount(depths, utility[others], minlength=size)[::-1].cumsum()[::-1][1:]
    return counts, sums


def _with(state: State, index: int, cut: int) -> State:
    return (*state[:index], cut, *state[index + 1 :])
