"""How much of a metric's variance each parameter of a search explains."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raysandbox.core.errors import MissingExtraError
from raysandbox.report.axes import Column, show_value

__all__ = ["Importance", "parameter_importance"]

_LEAST_POINTS = 8
_MOST_CATEGORIES = 8  # Optuna's fANOVA goes through 2^categories combinations
_MOST_POINTS_OF_A_FOREST = 400  # above, fANOVA takes longer than anybody waits for a report


@dataclass(frozen=True)
class Importance:
    """Shares of the metric's variance.

    Attributes:
        shares: parameter → share, the largest first, with a sum of 1; empty where nothing can be said.
        note: what it rests on, or why there is none.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def parameter_importance(
    points: Sequence[tuple[Mapping[str, Any], float]], columns: Mapping[str, Column], goal: str
) -> Importance:
    """Estimates the importance of parameters.

    By functional analysis of variance over a random forest (Hutter, Hoos and Leyton-Brown 2014); without
    scikit-learn, and with many points or categories, by PED-ANOVA (Watanabe, Bansal and Hutter 2023), which
    asks what the best tenth of the points have in common. Both are Optuna's.

    Args:
        points: parameters and metric (the mean over repeats) of points that are done.
        columns: the parameters that vary.
        goal: "minimize" or "maximize".
    """
    if len(points) < _LEAST_POINTS:
        return Importance(note=f"importance needs {_LEAST_POINTS} finished points; there are {len(points)}")
    if len({value for _, value in points}) < 2:
        return Importance(note=f"all {len(points)} finished points have the same value: no parameter explains it")
    places = {name: {column.position(params.get(name)) for params, _ in points} for name, column in columns.items()}
    varying = [name for name, seen in places.items() if len(seen) > 1 and None not in seen]
    if not varying:
        return Importance(note="no parameter has different values in the finished points")
    if importlib.util.find_spec("optuna") is None:
        return Importance(note=str(MissingExtraError("optuna", "hpo", "importance of parameters")))
    shares, method = _evaluate(points, {name: columns[name] for name in varying}, goal)
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return Importance(ordered, f"by {method} over {len(points)} finished points")


def _evaluate(
    points: Sequence[tuple[Mapping[str, Any], float]], columns: Mapping[str, Column], goal: str
) -> tuple[dict[str, float], str]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    few = len(points) <= _MOST_POINTS_OF_A_FOREST and max(map(_categories, columns.values())) <= _MOST_CATEGORIES
    forest = few and importlib.util.find_spec("sklearn") is not None
    with _quiet():
        study = optuna.create_study(direction="maximize" if goal == "maximize" else "minimize")
        distributions = {name: _distribution(column, points) for name, column in columns.items()}
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={name: _plain(params.get(name), columns[name]) for name in columns},
                    distributions=distributions,
                    value=value,
                )
                for params, value in points
            ]
        )
        evaluator = FanovaImportanceEvaluator(seed=0) if forest else PedAnovaImportanceEvaluator()
        shares = get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}, "fANOVA" if forest else "PED-ANOVA"


def _categories(column: Column) -> int:
    """How many categories without an order a parameter has."""
    return 0 if column.ordered else len(column.categories)


def _plain(value: Any, column: Column) -> Any:
    """What stands for a value: of numbers in a list their place in it."""
    if column.scale != "categories":
        return float(value)
    text = show_value(value)
    return float(column.categories.index(text)) if column.ordered else text


def _distribution(column: Column, points: Sequence[tuple[Mapping[str, Any], float]]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if column.scale == "categories" and not column.ordered:
        seen = {show_value(params.get(column.name)) for params, _ in points}
        return CategoricalDistribution([text for text in column.categories if text in seen])
    return FloatDistribution(column.low, column.high, log=column.scale == "log")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's log lines and its warnings of experimental functions."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
