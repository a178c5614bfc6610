"""Refinement by model feedback: thresholds that improve a loss or score per row at a wanted retention.

Cuts are chosen by `_cuts.Chooser` and judged on rows that had no part in the choice. A recipe is
changed only when the gain there is above chance. Equal rows, in a data set with duplicates or with
sources that are repeated, are one row with a weight: else a copy would judge what the other chose.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.analysis.numbers import readable
from raysandbox.core.component import Component, InputPath
from raysandbox.core.errors import UserError, did_you_mean
from raysandbox.refine._bounds import Change, RecipePath, Refinement, as_written, bounds_of, filter_class, steps_of
from raysandbox.refine._copies import Copies
from raysandbox.refine._cuts import Chooser, Gain, Rule, effective, gain_between
from raysandbox.refine._grid import Bound, Grid, MeasuredFilter, State, bounds_on, numbers_of

__all__ = ["FeedbackRefinement", "MeasuredFilter", "ModelFeedbackConfig", "Move", "refine"]

_ROWS_PER_FOLD = 20  # with feedback; fewer say nothing about means


class ModelFeedbackConfig(Component):
    """Writes a recipe whose bounds keep the rows with the best feedback, where that is beyond chance."""

    example: ClassVar[Mapping[str, Any]] = {
        "path_refined_recipe": "./outputs/demo/refined_recipe.yaml",
        "feedback": "./outputs/demo/probed.jsonl",
        "retention": 0.8,
    }

    path_refined_recipe: RecipePath = Field(description="the new recipe: .yaml, .yml or .json")
    feedback: InputPath | None = Field(
        None, description="data set with a loss or score per row; by default what the probe of the same meta_name wrote"
    )
    feedback_key: str = Field(
        "__dj__stats__.model_loss", min_length=1, description="column of the feedback; levels separated by dots"
    )
    goal: Literal["minimize", "maximize"] = Field("minimize", description="whether low or high feedback is good")
    retention: float = Field(0.8, gt=0, le=1, description="smallest share of the rows with feedback to keep")
    retention_tolerance: float = Field(0.0, ge=0, lt=1, description="how much less than `retention` may be kept")
    min_gain: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="what the lower end of the gain's confidence interval must exceed"
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="of the confidence intervals")
    folds: int = Field(5, ge=2, le=50, description="parts of the rows; each is judged by cuts chosen on the others")
    max_rounds: int = Field(10, ge=1, description="most rounds of coordinate ascent over the bounds")
    two_sided: bool = Field(True, description="whether both bounds of a statistic may move, or only the better one")
    operators: list[str] = Field(default_factory=list, description="filters whose bounds may move; all when empty")
    seed: int = Field(42, description="seed of the folds")


@dataclass(frozen=True)
class Move:
    """One bound that was moved; its effects are those beside all other moves.

    Attributes:
        bound: the bound.
        cut: index of its new value.
        old: value before, None where the recipe leaves it at its default.
        new: value after.
        share: share of the rows kept without and with it.
        gain: of the mean feedback on rows without part in the choice; positive is better.
        folds: in how many of the folds it moved to the same side.
    """

    bound: Bound
    cut: int
    old: Any
    new: Any
    share: tuple[float, float]
    gain: Gain
    folds: int


@dataclass(frozen=True)
class FeedbackRefinement(Refinement):
    """A refined recipe, with what was measured.

    Attributes:
        moves: what was changed.
        filters: the filters that the rows were measured with.
        feedback: of the rows that have one (float64).
        kept: rows (bool) that the recipe keeps before and after.
        without_feedback: rows that were left out.
        gain: of all moves together, also of those that were not made; None when none stood out.
        verdict: a sentence about the whole.
    """

    moves: tuple[Move, ...]
    filters: tuple[MeasuredFilter, ...]
    feedback: np.ndarray
    kept: tuple[np.ndarray, np.ndarray]
    without_feedback: int
    gain: Gain | None
    verdict: str


def refine(
    recipe: Mapping[str, Any],
    measured: Sequence[MeasuredFilter],
    feedback: np.ndarray,
    settings: ModelFeedbackConfig,
) -> FeedbackRefinement:
    """Moves the bounds of a recipe's filters such that the rows kept have better feedback.

    All bounds that the filters declare may move, also those that the recipe leaves at their defaults.

    Args:
        recipe: a data recipe; not changed.
        measured: its filters with their statistics of all rows.
        feedback: one number per row (float64); NaN and infinite ones are left out.
        settings: how to choose.

    Raises:
        UserError: `operators` names a filter that the recipe does not have.
    """
    _check_operators(settings.operators, measured)
    finite = np.isfinite(feedback)
    measured = tuple(replace(m, stats=_select(m.stats, finite)) for m in measured)
    feedback = feedback[finite]
    copies = Copies.among(feedback, [values for m in measured for values in m.stats.values()])
    distinct = [replace(m, stats={key: v.take(pa.array(copies.first)) for key, v in m.stats.items()}) for m in measured]
    grid = Grid(distinct, _movable(measured, settings.operators), len(copies.first))
    study = _Study(settings, grid, feedback[copies.first], copies.sizes)
    moves, gain, verdict = study.result(recipe)
    refined = copy.deepcopy(dict(recipe))
    _apply(refined, moves, study.grid)
    changes = _changes(recipe, study, moves)
    old, new = study.grid.old, _state_of(study.grid, moves)
    kept = (study.grid.kept(old)[copies.of_row], study.grid.kept(new)[copies.of_row])
    return FeedbackRefinement(refined, changes, moves, measured, feedback, kept, int((~finite).sum()), gain, verdict)


@dataclass
class _Study:
    """The choice for one data set, of which every row is different.

    Attributes:
        settings: how to choose.
        grid: the cuts.
        feedback: one number per row (float64).
        weights: copies of each row (float64).
    """

    settings: ModelFeedbackConfig
    grid: Grid
    feedback: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        settings, size = self.settings, len(self.feedback)
        self.utility = -self.feedback if settings.goal == "minimize" else self.feedback
        self.folds = np.random.default_rng(settings.seed).permutation(size) % settings.folds
        self.least = max(settings.retention - settings.retention_tolerance, 0.0)
        rule = Rule(self.least, _ROWS_PER_FOLD, settings.confidence, settings.max_rounds, settings.two_sided)
        self.chooser = Chooser(self.grid, self.utility, self.weights, rule)
        self.dropped: dict[int, Gain] = {}
        self.stood_out: set[int] = set()
        self.hindrance = self._hindrance()

    def result(self, recipe: Mapping[str, Any]) -> tuple[tuple[Move, ...], Gain | None, str]:
        """The moves to make, the gain of all together, and the verdict."""
        if self.hindrance:
            return (), None, f"nothing changes: {self.hindrance}"
        everything = np.ones(len(self.feedback), bool)
        allowed = set(range(len(self.grid.bounds)))
        self.stood_out = self._moved(self.chooser.choose(everything, allowed))
        if not self.stood_out:
            return (), None, f"nothing changes: no cut {self._retaining()} improves {self._name} beyond chance"
        # Judged before anything is left out: this choice had no part in what it is measured on.
        gain = self._held_out_gain(allowed)
        if self._is_beyond_chance(gain):
            chosen = self._needed_ones(self.stood_out)
            state = self.chooser.choose(everything, chosen)
            moved = sorted(self._moved(state))
            gain = self._held_out_gain(chosen) if moved else gain
            if moved and self._is_beyond_chance(gain):
                old, new = (_percent(self._share(each)) for each in (self.grid.old, state))
                moves = tuple(self._move(recipe, index, state, chosen) for index in moved)
                return moves, gain, f"rows kept {old} → {new}; {self._text(gain)}, {self.settings.folds} folds"
        limit = f", not surely {self.settings.min_gain:g}" if self.settings.min_gain else ""
        return (), gain, f"nothing changes: the gain is within noise{limit} ({self._text(gain)})"

    def _hindrance(self) -> str:
        """Why nothing can be said, if so."""
        distinct, rows, folds = len(self.feedback), int(self.weights.sum()), self.settings.folds
        needed = _ROWS_PER_FOLD * folds
        if distinct < needed:
            different = "" if distinct == rows else f", {distinct} of them different"
            return f"{rows} rows have feedback{different}, {folds} folds need {needed}"
        if not self.grid.bounds:
            return "no filter of the recipe has a bound that could move"
        if np.ptp(self.feedback) == 0:
            return f"{self._name} is the same in all rows"
        kept = self.grid.kept(self.grid.old)
        if kept.sum() < needed:
            return f"the recipe keeps {kept.sum()} of the {distinct} rows with feedback, {folds} folds need {needed}"
        if (sure := effective(self.weights[kept])) < needed:
            return (
                f"copies outweigh all else: the rows kept say as much as {sure:.0f} would, {folds} folds need {needed}"
            )
        loosest = self._share((0,) * len(self.grid.bounds))
        if loosest < self.least:
            return f"the loosest bounds keep {_percent(loosest)} of the rows, {_percent(self.least)} are wanted"
        return ""

    def _needed_ones(self, chosen: AbstractSet[int]) -> set[int]:
        """Backward elimination: bounds without which as much is gained, on rows without part in the choice, stay."""
        left = set(chosen)
        while left:
            kept, _ = self.chooser.held_out(self.folds, left)
            without = {
                index: self._gain(self.chooser.held_out(self.folds, left - {index})[0], kept) for index in sorted(left)
            }
            worst = min(without, key=lambda index: without[index].value)
            if without[worst].low > 0:
                return left
            self.dropped[worst] = without[worst]
            left.discard(worst)
        return left

    def _move(self, recipe: Mapping[str, Any], index: int, state: State, chosen: AbstractSet[int]) -> Move:
        bound = self.grid.bounds[index]
        kept, states = self.chooser.held_out(self.folds, chosen)
        before, _ = self.chooser.held_out(self.folds, set(chosen) - {index})
        rest = (*state[:index], bound.old, *state[index + 1 :])
        shares = self._share(rest), self._share(state)
        same = sum(np.sign(each[index] - bound.old) == np.sign(state[index] - bound.old) for each in states)
        old = _arguments(recipe, self.grid.filters[bound.owner].position).get(bound.argument)
        new = as_written(bound.cuts[state[index]], old)
        return Move(bound, state[index], old, new, shares, self._gain(before, kept), int(same))

    def _moved(self, state: State) -> set[int]:
        return {index for index, cut in enumerate(state) if cut != self.grid.bounds[index].old}

    def _held_out_gain(self, allowed: AbstractSet[int]) -> Gain:
        return self._gain(self.grid.kept(self.grid.old), self.chooser.held_out(self.folds, allowed)[0])

    def _gain(self, old: np.ndarray, new: np.ndarray) -> Gain:
        return gain_between(self.utility, old, new, self.folds, self.settings.confidence, self.weights)

    def _share(self, state: State) -> float:
        """Of all rows with feedback, copies included, those that are kept."""
        return float(self.weights @ self.grid.kept(state) / self.weights.sum())

    def _is_beyond_chance(self, gain: Gain) -> bool:
        return gain.low > 0 and gain.low >= self.settings.min_gain

    @property
    def _name(self) -> str:
        return self.settings.feedback_key.removeprefix("__dj__stats__.")

    def _retaining(self) -> str:
        """What is wanted of the rows, and whether the recipe itself does it."""
        share = self._share(self.grid.old)
        less = f" (the recipe keeps {_percent(share)})" if share < self.least else ""
        return f"that keeps at least {_percent(self.least)} of the rows{less}"

    def _text(self, gain: Gain) -> str:
        """Both means as they are, the gain such that more is better."""
        sign = -1 if self.settings.goal == "minimize" else 1
        return (
            f"held-out {self._name} {readable(sign * gain.before)} → {readable(sign * gain.after)}, "
            f"gain {readable(gain.value)}, {self.settings.confidence * 100:g} % CI {readable(gain.low)} to "
            f"{readable(gain.high)}"
        )

    def explain(self, move: Move) -> str:
        """The reason of a change."""
        default = "" if move.old is not None else "; the recipe leaves it at its default"
        before, after = map(_percent, move.share)
        folds = f"chosen in {move.folds} of {self.settings.folds} folds"
        return f"rows kept {before} → {after}; {self._text(move.gain)}, {folds}{default}"

    def explain_dropped(self, gain: Gain) -> str:
        """Why a bound that stood out was not moved."""
        return f"its cut adds nothing to the others on rows that it was not chosen on: {self._text(gain)}"


def _check_operators(wanted: Sequence[str], measured: Sequence[MeasuredFilter]) -> None:
    names = [m.filter.type_name for m in measured]
    for name in wanted:
        if name not in names:
            hint = did_you_mean(name, names) or f"it has {', '.join(dict.fromkeys(names))}"
            raise UserError(f"operators: the recipe has no filter '{name}'; {hint}")


def _select(stats: Mapping[str, pa.Array], keep: np.ndarray) -> dict[str, pa.Array]:
    return {key: values.filter(pa.array(keep)) for key, values in stats.items()}


def _movable(measured: Sequence[MeasuredFilter], wanted: Sequence[str]) -> list[Bound]:
    return [
        bound
        for owner, each in enumerate(measured)
        if not each.filter.reversed_range and (not wanted or each.filter.type_name in wanted)
        for bound in bounds_on(owner, each)
    ]


def _state_of(grid: Grid, moves: Sequence[Move]) -> State:
    moved = {(move.bound.owner, move.bound.argument): move.cut for move in moves}
    return tuple(moved.get((bound.owner, bound.argument), bound.old) for bound in grid.bounds)


def _arguments(recipe: Mapping[str, Any], position: int) -> dict[str, Any]:
    return next(arguments for index, _, arguments in steps_of(recipe) if index == position)


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _apply(recipe: dict[str, Any], moves: Sequence[Move], grid: Grid) -> None:
    """Sets the new values in a recipe, which may give a step no arguments yet."""
    for move in moves:
        position = grid.filters[move.bound.owner].position
        step = recipe["process"][position]
        name = step if isinstance(step, str) else next(iter(step))
        recipe["process"][position] = {name: {**_arguments(recipe, position), move.bound.argument: move.new}}


def _changes(recipe: Mapping[str, Any], study: _Study, moves: Sequence[Move]) -> tuple[Change, ...]:
    """A line for every move, and one for every operator without."""
    lines = []
    for position, operator, _ in steps_of(recipe):
        mine = [move for move in moves if study.grid.filters[move.bound.owner].position == position]
        for move in mine:
            old = move.old if move.old is not None else _default(study.grid, move.bound)
            lines.append(Change(position, operator, move.bound.argument, old, move.new, study.explain(move), True))
        if not mine:
            lines.append(Change(position, operator, None, None, None, _why_kept(position, operator, study), False))
    return tuple(lines)


def _default(grid: Grid, bound: Bound) -> Any:
    """What bounds where the recipe says nothing, for people: operators have sys.maxsize for no bound."""
    value = getattr(grid.filters[bound.owner].filter, bound.argument)
    return "unbounded" if value is None or abs(value) >= sys.maxsize else value


def _why_kept(position: int, operator: str, study: _Study) -> str:
    """Why an operator has no bound that moved."""
    owner = next((i for i, each in enumerate(study.grid.filters) if each.position == position), None)
    if filter_class(operator) is None or owner is None:
        return "it is no filter" if filter_class(operator) is None else "its statistics are unknown"
    measured = study.grid.filters[owner]
    bounds = bounds_of(measured.filter.statistics())
    if not bounds:
        return "it declares no statistics with bounds"
    if measured.filter.reversed_range:
        return "it keeps what lies outside its bounds"
    if study.settings.operators and operator not in study.settings.operators:
        return "not among `operators`"
    keys = " and ".join(dict.fromkeys(stat.key for _, _, stats in bounds for stat in stats))
    mine = {i for i, bound in enumerate(study.grid.bounds) if bound.owner == owner}
    if not mine:
        some = any(len(numbers_of(values)) for values in measured.stats.values())
        return f"{keys} is the same in all rows" if some else f"no row has {keys}"
    if study.hindrance:
        return "nothing was tried"
    if tried := mine & set(study.dropped):
        return study.explain_dropped(study.dropped[min(tried)])
    if mine & study.stood_out:
        return f"the gain of a cut of {keys} is within noise"
    return f"no cut of {keys} adds to the others beyond chance"
