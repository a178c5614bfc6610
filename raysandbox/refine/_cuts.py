"""Thresholds that raise the mean of a number over the rows kept: found on some rows, measured on others.

Greedy fitting of cuts to noise always finds a "gain" on the rows that it looks at. Two things
stand against that. A bound moves only when the rows that it drops are worse than those that it
keeps by more than chance would make the worst of all cuts tried (Bonferroni). And what is reported
is measured on rows that had no part in the choice: the whole procedure is repeated on K - 1 of K
folds, and its thresholds are applied to the remaining one.

Copies of a row are one row with a weight: they count as many times in every mean, and once as evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from raysandbox.refine._grid import Grid, State

__all__ = ["Chooser", "Gain", "Rule", "effective", "gain_between"]

_PRICES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
_CLEARLY = 2.0  # standard errors by which a cut that drops more must be better

Profile = tuple[np.ndarray, np.ndarray, np.ndarray]  # see `profile`
Worth = Callable[[np.ndarray, np.ndarray], np.ndarray]  # from sums and counts


@dataclass(frozen=True)
class Rule:
    """How cuts are chosen.

    Attributes:
        least: smallest share of the rows to keep.
        fewest: smallest number of rows to keep, copies as in `effective`: the mean of a few says nothing.
        confidence: of the interval, and 1 - the chance that noise moves any bound on the rows it is chosen on.
        max_rounds: times that all bounds are gone through at one price.
        two_sided: whether both bounds of a statistic may move.
    """

    least: float
    fewest: int
    confidence: float
    max_rounds: int
    two_sided: bool


@dataclass(frozen=True)
class Gain:
    """How much higher the mean is over one set of rows than over another, with its confidence interval."""

    before: float
    after: float
    value: float
    low: float
    high: float


def effective(weights: np.ndarray) -> float:
    """The number of rows of equal weight whose mean is as sure: sum(w)² / sum(w²) (Kish)."""
    return float(weights.sum() ** 2 / np.maximum(np.square(weights).sum(), 1))


def gain_between(
    utility: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
    folds: np.ndarray,
    confidence: float,
    weights: np.ndarray | None = None,
) -> Gain:
    """The difference of the means over two overlapping sets of rows, taken in each fold and averaged.

    Fold by fold, since the thresholds of one fold were chosen with the rows of the others. The variance
    within a fold is that of the linearised ratios (delta method): the mean over a set A of n rows is
    sum(w·a·u) / sum(w·a), whose influence of row i is w_i a_i (u_i - mean_A) / mean(w·a). With copies as
    weights that is the cluster-robust variance.

    Args:
        utility: the higher, the better (float64, one per row).
        old: rows before (bool).
        new: rows after (bool).
        folds: number of each row's fold (int); those without rows before or after do not count.
        confidence: of the two-sided interval.
        weights: copies of each row (float64); one of each by default.
    """
    weights = np.ones(len(utility)) if weights is None else weights
    means, variances = [], []
    for fold in range(int(folds.max()) + 1):
        mine = folds == fold
        u, a, b = utility[mine], weights[mine] * old[mine], weights[mine] * new[mine]
        if a.any() and b.any():
            before, after = float(a @ u / a.sum()), float(b @ u / b.sum())
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
        weights: copies of each row (float64).
        rule: how to choose.
    """

    grid: Grid
    utility: np.ndarray
    weights: np.ndarray
    rule: Rule

    @cached_property
    def summed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `profile` sums up: copies, utility with copies, squared copies."""
        return self.weights, self.weights * self.utility, self.weights**2

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
        for price in np.quantile(kept[kept <= max(self._mean(rows, search.start), kept.min())], _PRICES):
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
        weights = self.weights * (rows & self.grid.kept(state))
        return float(weights @ self.utility / weights.sum()) if weights.any() else -math.inf

    def size(self, rows: np.ndarray) -> float:
        """How many some rows (bool) are with their copies."""
        return float(self.weights @ rows)

    def _loosened(self, rows: np.ndarray, allowed: AbstractSet[int]) -> State:
        """The recipe's own cuts, or looser ones where these keep fewer rows than wanted.

        One bound after the other is loosened, the one that brings back most rows first, no further than needed.
        """
        state, needed = self.grid.old, self.rule.least * self.size(rows)
        while self.size(rows & self.grid.kept(state)) < needed:
            options = []
            for index in allowed:
                counts = profile(self, index, state, rows)[0]
                enough = np.flatnonzero(counts >= needed)
                cut = int(enough[-1]) if len(enough) else 0
                options.append((min(counts[cut], needed), -abs(cut - state[index]), -index, cut))
            best = max(options, default=(0, 0, 0, 0))
            if not options or best[0] <= self.size(rows & self.grid.kept(state)):
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
        self._needed = self.chooser.rule.least * self.chooser.size(self.rows)
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
        best = {index: float(self._evidence(index, self._profile(index)).max()) for index in sorted(allowed)}
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
        found = counts, sums, squares = self._profile(index)
        current, start = self.state[index], self.start[index]
        enough = (counts >= self._needed) & (counts**2 >= self.chooser.rule.fewest * squares)
        possible = enough & (self._evidence(index, found) >= self.gate)
        if self._other_side_moved(index):
            possible[:] = False
        possible[start] = enough[start]
        if not possible.any():
            return current
        values = np.where(possible, worth(sums, counts), -math.inf)
        best = int(np.argmax(values))
        if sparing:
            return int(np.flatnonzero(possible & (self._tightening_pays(best, found) < _CLEARLY))[0])
        return current if possible[current] and values[current] >= values[best] else best

    def _profile(self, index: int) -> Profile:
        return profile(self.chooser, index, self.state, self.rows)

    def _evidence(self, index: int, found: Profile) -> np.ndarray:
        """Of each cut how sure it is that it is better than the one at the start, in standard errors."""
        counts, start = found[0], self.start[index]
        tighter = np.arange(len(counts)) > start
        pays = self._tightening_pays(start, found)
        return np.where(counts == counts[start], -math.inf, np.where(tighter, pays, -pays))

    def _tightening_pays(self, cut: int, found: Profile) -> np.ndarray:
        """Of each cut how sure it is that of it and another the tighter one is better, in standard errors.

        Two-sample z between the rows that both keep and those that only the looser one keeps; 0 where
        there are none of either. A weighted mean has the variance of one row times sum(w²) / sum(w)².
        """
        tighter = np.arange(len(found[0])) > cut
        few = [np.where(tighter, each, each[cut]) for each in found]
        between = [np.where(tighter, each[cut], each) - less for each, less in zip(found, few, strict=True)]
        some = (between[0] > 0) & (few[0] > 0)
        means, variances = [], []
        for counts, sums, squares in (few, between):
            size = np.where(some, counts, 1)
            means.append(sums / size)
            variances.append(np.where(some, squares, 1) / size**2)
        return np.where(some, (means[0] - means[1]) / (self._spread * np.sqrt(sum(variances))), 0.0)

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


def profile(chooser: Chooser, index: int, state: State, rows: np.ndarray) -> Profile:
    """What would be kept of some rows (bool) at each cut of a bound, the others as they are.

    Returns:
        three arrays of one value per cut, from the loosest to the tightest: of the rows that it keeps the
        number with copies, the sum of the utility, and the sum of the squared numbers of copies.
    """
    others = rows & chooser.grid.kept(state, without=index)
    depths = np.where(others, chooser.grid.depths(index, state), 0).astype(np.intp)  # 0: no cut keeps it
    size = len(chooser.grid.bounds[index].cuts) + 1
    at_depth = (np.bincount(depths, each, size) for each in chooser.summed)
    counts, sums, squares = (each[::-1].cumsum()[::-1][1:] for each in at_depth)
    return counts, sums, squares


def _with(state: State, index: int, cut: int) -> State:
    return (*state[:index], cut, *state[index + 1 :])
