"""K-sigma refinement: thresholds of a recipe from the mean and spread of what they bound.

The rule is the original sandbox's: every bound that the recipe sets becomes mean ± k standard
deviations of its statistic. Which argument bounds which statistic is declared by the operator
(`Filter.stats`), never guessed from names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.analysis.numbers import readable
from raysandbox.analysis.summary import Analysis, NumericSummary
from raysandbox.core.component import Component
from raysandbox.ops.base import Stat
from raysandbox.refine._bounds import (
    Change,
    RecipePath,
    Refinement,
    Side,
    as_written,
    bounds_of,
    clamped,
    filter_class,
    outwards,
    statistics_of,
    steps_of,
    takes_fractions,
    write_recipe,
)

__all__ = ["Change", "KSigmaConfig", "Refinement", "refine", "write_recipe"]


class KSigmaConfig(Component):
    """Writes a recipe whose bounds are mean ± k standard deviations of the analysed statistics."""

    example: ClassVar[Mapping[str, Any]] = {"path_k_sigma_recipe": "./outputs/demo/k_sigma_recipe.yaml", "k": 3}

    path_k_sigma_recipe: RecipePath = Field(description="the new recipe: .yaml, .yml or .json")
    k: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="how many standard deviations a bound lies off the mean"
    )


def refine(recipe: Mapping[str, Any], analysis: Analysis, k: float = 3.0) -> Refinement:
    """Sets the bounds that a recipe gives to mean ± k standard deviations.

    Arguments that the recipe leaves at their defaults stay so, as in the original. Integer bounds
    are rounded outwards, all are kept within the statistic's range.

    Args:
        recipe: a data recipe; not changed.
        analysis: statistics of the data before filtering.
        k: number of standard deviations.

    Returns:
        the recipe with new bounds, and an explanation of each.
    """
    refined = copy.deepcopy(dict(recipe))
    changes = [
        change
        for position, operator, arguments in steps_of(refined)
        for change in _refine_operator(position, operator, arguments, analysis, k)
    ]
    return Refinement(refined, tuple(changes))


def _refine_operator(
    position: int, operator: str, arguments: dict[str, Any], analysis: Analysis, k: float
) -> Iterator[Change]:
    """Sets bounds in `arguments` and yields what it did."""
    cls = filter_class(operator)
    bounds = bounds_of(statistics_of(cls, arguments)) if cls else []
    present = [bound for bound in bounds if bound[0] in arguments]
    if cls is None or not present:
        reason = "the recipe sets none of its bounds" if bounds else "it declares no statistics with bounds"
        yield Change(position, operator, None, None, None, reason, False)
        return
    for argument, side, stats in present:
        old = arguments[argument]
        whole = not takes_fractions(cls, argument)
        candidates = [
            _bound(stat, summary, side, k, whole=whole or stat.integer)
            for stat in stats
            if (summary := analysis.numeric.get(stat.key)) and summary.mean is not None and summary.std is not None
        ]
        if candidates:
            # An argument that bounds several statistics must suit them all.
            value, reason = min(candidates) if side == "lower" else max(candidates)
            arguments[argument] = as_written(value, old)
        else:
            reason = _why_unknown([stat.key for stat in stats], analysis)
        yield Change(position, operator, argument, old, arguments[argument], reason, bool(candidates))


def _bound(stat: Stat, summary: NumericSummary, side: Side, k: float, *, whole: bool) -> tuple[float, str]:
    """The bound that one statistic suggests, and its derivation."""
    mean, std = summary.mean or 0.0, summary.std or 0.0
    sign = "−" if side == "lower" else "+"
    reason = f"mean {readable(mean)} {sign} {k:g} × std {readable(std)}"
    value = outwards(mean - k * std if side == "lower" else mean + k * std, side, whole=whole)
    limit = clamped(value, stat, whole=whole)
    return limit, reason if limit == value else f"{reason}, clamped to {limit:g}"


def _why_unknown(keys: list[str], analysis: Analysis) -> str:
    names = " or ".join(keys)
    if any(key in analysis.numeric for key in keys):
        return f"fewer than two rows have a value of {names}"
    if any(key in analysis.text for key in keys):
        return f"{names} is not a number"
    return f"the analysis has no statistic {names}"
