"""What a search found, read from its folder: trials ranked, points over their seeds, parameters as axes."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from raysandbox.core.files import read_object
from raysandbox.report.axes import Column, category_column, number_column, show_value
from raysandbox.report.importance import Importance, parameter_importance
from raysandbox.report.summary import read_status
from raysandbox.sandbox.trials import TrialRecord, read_trials

__all__ = [
    "SEARCH_FOLDER",
    "Point",
    "SearchSummary",
    "best_trial",
    "collect_search",
    "has_value",
    "short_name",
    "to_json_cell",
]

SEARCH_FOLDER = Path("artifacts") / "search"
_MANY_CATEGORIES = 30
_LAST = 2  # rank of trials that have no value to be ranked by
_STATE_RANK = {"done": 0, "stopped": 1}
# Distributions whose `min` and `max` are values, not exponents.
_BOUNDED = (None, "uniform", "int_uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values")


def has_value(trial: TrialRecord) -> bool:
    """Whether a trial has a metric that can be compared."""
    return trial.value is not None and math.isfinite(trial.value)


@dataclass(frozen=True)
class Point:
    """A point of the search space over its repeats.

    Attributes:
        number: of the point.
        params: parameter → value.
        values: of the repeats that are done, in order of their trials.
        trials: how many repeats there are so far, in any state.
    """

    number: int
    params: Mapping[str, Any]
    values: tuple[float, ...]
    trials: int

    @property
    def mean(self) -> float:
        """Mean over the repeats that are done; there must be one."""
        return fmean(self.values)

    @property
    def error(self) -> float | None:
        """Standard error of the mean: s / √n; None with fewer than two repeats."""
        return stdev(self.values) / math.sqrt(len(self.values)) if len(self.values) > 1 else None


def points_of(trials: Iterable[TrialRecord]) -> tuple[Point, ...]:
    """The points that the trials belong to, by number."""
    groups: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        groups[trial.point].append(trial)
    return tuple(
        Point(
            number,
            group[0].params,
            tuple(float(trial.value or 0.0) for trial in group if trial.state == "done" and has_value(trial)),
            len(group),
        )
        for number, group in sorted(groups.items())
    )


def _ranked_points(trials: Sequence[TrialRecord], goal: str) -> list[Point]:
    """The points with a repeat that is done: those with the most of them first, then by their mean.

    A point of which repeats failed or are still to come is not compared with whole ones: its mean rests on
    fewer values, so that luck would choose it.
    """
    points = [point for point in points_of(trials) if point.values]
    return sorted(points, key=lambda point: (-len(point.values), _cost(point.mean, goal), point.number))


def best_trial(trials: Sequence[TrialRecord], goal: str) -> TrialRecord | None:
    """The best trial of a search.

    Among the trials that are done: the one with the best value, the earliest of equals; with repeats, the
    best repeat of the point with the best mean, among the points with the most repeats done. When none is
    done, the best of those that were stopped.

    Args:
        trials: in any state and order.
        goal: "minimize" or "maximize".
    """
    point = next(iter(_ranked_points(trials, goal)), None)
    candidates = [
        trial
        for trial in trials
        if has_value(trial)
        and (trial.state == "done" and trial.point == point.number if point else trial.state == "stopped")
    ]
    return min(candidates, key=lambda trial: (_cost(trial.value, goal), trial.number), default=None)


def _cost(value: float | None, goal: str) -> float:
    assert value is not None
    return -value if goal == "maximize" else value


@dataclass(frozen=True)
class SearchSummary:
    """A search in numbers.

    Attributes:
        name: of the search.
        metric: name of what is searched for.
        goal: "minimize" or "maximize".
        target: value at which the search ends, if there is one.
        method: how points are chosen.
        planned: how many trials it will have; None where something else ends it.
        seeds: how many repeats a point has; 0 and 1 both mean one.
        forms: parameter → its entry in the sweep file.
        trials: by number.
        status: content of `status.json`.
    """

    name: str
    metric: str
    goal: str
    target: float | None
    method: str
    planned: int | None
    seeds: int
    forms: Mapping[str, Mapping[str, Any]]
    trials: tuple[TrialRecord, ...]
    status: Mapping[str, Any]

    @cached_property
    def best(self) -> TrialRecord | None:
        """The best trial, see `best_trial`."""
        return best_trial(self.trials, self.goal)

    @cached_property
    def ranked(self) -> tuple[TrialRecord, ...]:
        """The trials that are done, best first; those that were stopped; the others by number."""

        def place(trial: TrialRecord) -> tuple[int, float, int]:
            rank = _STATE_RANK.get(trial.state, _LAST) if has_value(trial) else _LAST
            return rank, 0.0 if rank == _LAST else _cost(trial.value, self.goal), trial.number

        return tuple(sorted(self.trials, key=place))

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The points with at least one repeat done, those with the most repeats first, then by their mean."""
        return tuple(_ranked_points(self.trials, self.goal))

    @property
    def repeated(self) -> bool:
        """Whether points are run more than once."""
        return self.seeds > 1

    @property
    def counts(self) -> Mapping[str, int]:
        """State → number of trials."""
        return Counter(trial.state for trial in self.trials)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters, those of the sweep file first."""
        return tuple(dict.fromkeys([*self.forms, *(name for trial in self.trials for name in trial.params)]))

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """An axis for every parameter that varies."""
        varying = [name for name in self.parameters if not self._is_constant(name)]
        return tuple(self._column(name, varying) for name in varying)

    @cached_property
    def value_column(self) -> Column:
        """The axis of the metric."""
        values = [float(trial.value or 0.0) for trial in self.trials if has_value(trial)]
        return number_column(self.metric, self.metric, values, scale=_value_scale(values))

    @cached_property
    def importance(self) -> Importance:
        """How much of the metric's variance each parameter explains."""
        points = [(point.params, point.mean) for point in self.points]
        return parameter_importance(points, {column.name: column for column in self.columns}, self.goal)

    def _is_constant(self, name: str) -> bool:
        form = self.forms.get(name)
        if form is not None and ("value" in form or len(form.get("values", [0, 0])) < 2):
            return True
        if form is not None:
            return "min" in form and form["min"] == form.get("max")
        seen = {show_value(trial.params.get(name)) for trial in self.trials}
        return len(self.trials) > 1 and len(seen) < 2

    def _column(self, name: str, names: Sequence[str]) -> Column:
        form = self.forms.get(name, {})
        label = short_name(name, names)
        seen = [trial.params[name] for trial in self.trials if name in trial.params]
        declared = list(form.get("values") or [])
        numbers = [value for value in seen if _is_number(value)]
        countable = declared or len(numbers) < len(seen)
        if countable and not (len(numbers) == len(seen) and len(declared) > _MANY_CATEGORIES):
            return category_column(name, label, [*declared, *seen])
        distribution = form.get("distribution")
        bounds = [form.get("min"), form.get("max")] if distribution in _BOUNDED else []
        scale = "log" if "log" in str(distribution) and all(value > 0 for value in numbers) else "linear"
        ends = [float(bound) for bound in bounds if bound is not None and _is_number(bound)]
        return number_column(name, label, [*numbers, *ends], scale=scale)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _value_scale(values: Sequence[float]) -> str:
    """Logarithmic where one value would flatten all others, as a loss that diverged does."""
    ordered = sorted(values)
    wide = len(ordered) > 2 and ordered[0] > 0 and ordered[-1] > 100 * ordered[len(ordered) // 2]
    return "log" if wide else "linear"


def short_name(name: str, names: Sequence[str]) -> str:
    """The shortest end of a dotted name that no other name has."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if sum(other == end or other.endswith(f".{end}") for other in names) == 1:
            return end
    return name


def collect_search(work_dir: Path) -> SearchSummary:
    """Reads the folder of a search, at any time: while it runs, after a kill, before its first trial."""
    told: Mapping[str, Any] = read_object(work_dir / SEARCH_FOLDER / "search.json")
    metric = _mapping(told.get("metric"))
    seeds = told.get("seeds") or 0
    trials = tuple(read_trials(work_dir / "journal.jsonl"))
    return SearchSummary(
        name=str(told.get("name") or work_dir.name),
        metric=str(metric.get("name", "objective")),
        goal=str(metric.get("goal", "minimize")),
        target=metric.get("target"),
        method=str(told.get("method", "")),
        planned=told.get("num_trials"),
        seeds=seeds if isinstance(seeds, int) else len(seeds),
        forms=_mapping(told.get("parameters")),
        trials=trials,
        status=read_status(work_dir),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    """A mapping of a file that may be damaged."""
    return value if isinstance(value, dict) else {}


def to_json_cell(value: Any) -> Any:
    """A value as a cell of a CSV file holds it: lists and mappings as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | Mapping) else value
