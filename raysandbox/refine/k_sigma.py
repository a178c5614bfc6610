"""K-sigma refinement: thresholds of a recipe from the mean and spread of what they bound.

The rule is the original sandbox's: every bound that the recipe sets becomes mean ± k standard
deviations of its statistic. Which argument bounds which statistic is declared by the operator
(`Filter.stats`), never guessed from names.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from raysandbox.analysis.numbers import readable
from raysandbox.analysis.summary import Analysis, NumericSummary
from raysandbox.core.component import Component, OutputPath
from raysandbox.core.files import atomic_write
from raysandbox.ops.base import OPERATORS, Filter, Operator, Stat

__all__ = ["Change", "KSigmaConfig", "Refinement", "refine", "write_recipe"]

Side = Literal["lower", "upper"]


class KSigmaConfig(Component):
    """Writes a recipe whose bounds are mean ± k standard deviations of the analysed statistics."""

    example: ClassVar[Mapping[str, Any]] = {"path_k_sigma_recipe": "./outputs/demo/k_sigma_recipe.yaml", "k": 3}

    path_k_sigma_recipe: OutputPath = Field(description="the new recipe: .yaml, .yml or .json")
    k: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="how many standard deviations a bound lies off the mean"
    )

    @field_validator("path_k_sigma_recipe")
    @classmethod
    def _known_suffix(cls, path: str) -> str:
        if Path(path).suffix not in (".yaml", ".yml", ".json"):
            raise ValueError(f"'{path}' must end in .yaml, .yml or .json")
        return path


@dataclass(frozen=True)
class Change:
    """What refinement did to one argument of one operator, or why it did nothing.

    Attributes:
        position: index in the recipe's `process`.
        operator: name of the operator.
        argument: the bound, or None when the line is about the whole operator.
        old: its value before.
        new: its value after; equal to `old` when it was skipped.
        reason: where the new value comes from, or why there is none.
        applied: whether the argument was set.
    """

    position: int
    operator: str
    argument: str | None
    old: Any
    new: Any
    reason: str
    applied: bool

    def __str__(self) -> str:
        name = f"{self.operator}.{self.argument}" if self.argument else self.operator
        return f"{name}: {self.old} → {self.new} ({self.reason})" if self.applied else f"{name}: kept ({self.reason})"


@dataclass(frozen=True)
class Refinement:
    """A refined recipe and one line for everything that was changed or left.

    Attributes:
        recipe: the new recipe.
        changes: in the order of the recipe's operators.
    """

    recipe: dict[str, Any]
    changes: tuple[Change, ...]


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
    changes: list[Change] = []
    for position, step in enumerate(refined.get("process") or []):
        if isinstance(step, str):
            changes.extend(_refine_operator(position, step, {}, analysis, k))
        else:
            for operator, arguments in step.items():
                changes.extend(_refine_operator(position, operator, arguments or {}, analysis, k))
    return Refinement(refined, tuple(changes))


def _refine_operator(
    position: int, operator: str, arguments: dict[str, Any], analysis: Analysis, k: float
) -> Iterator[Change]:
    """Sets bounds in `arguments` and yields what it did."""
    cls: type[Any] = OPERATORS.get(operator) if operator in OPERATORS.names() else Operator
    bounds = _bounds(_stats(cls, arguments)) if issubclass(cls, Filter) else []
    present = [bound for bound in bounds if bound[0] in arguments]
    if not present:
        reason = "the recipe sets none of its bounds" if bounds else "it declares no statistics with bounds"
        yield Change(position, operator, None, None, None, reason, False)
    for argument, side, stats in present:
        old = arguments[argument]
        whole = not _takes_fractions(cls, argument)
        candidates = [
            _bound(stat, summary, side, k, whole=whole or stat.integer)
            for stat in stats
            if (summary := analysis.numeric.get(stat.key)) and summary.mean is not None and summary.std is not None
        ]
        if candidates:
            # An argument that bounds several statistics must suit them all.
            value, reason = min(candidates) if side == "lower" else max(candidates)
            arguments[argument] = str(value) if isinstance(old, str) else value  # "9/21", "1KB" are texts
        else:
            reason = _why_unknown([stat.key for stat in stats], analysis)
        yield Change(position, operator, argument, old, arguments[argument], reason, bool(candidates))


def _stats(cls: type[Filter], arguments: Mapping[str, Any]) -> tuple[Stat, ...]:
    used = {key: value for key, value in arguments.items() if key not in cls.no_meaning_here}
    return cls.model_validate(used).statistics()


def _bounds(stats: tuple[Stat, ...]) -> list[tuple[str, Side, list[Stat]]]:
    """Each argument that bounds statistics, which side it bounds, and the statistics."""
    found: dict[tuple[str, Side], list[Stat]] = {}
    for stat in stats:
        if stat.lower:
            found.setdefault((stat.lower, "lower"), []).append(stat)
        if stat.upper:
            found.setdefault((stat.upper, "upper"), []).append(stat)
    return [(argument, side, bounded) for (argument, side), bounded in found.items()]


def _takes_fractions(cls: type[Operator], argument: str) -> bool:
    """Whether a field accepts 0.5, as a number or as text."""
    annotation: Any = cls.model_fields[argument].annotation
    try:
        TypeAdapter(annotation).validate_python("0.5")
    except ValidationError:
        return False
    return True


def _bound(stat: Stat, summary: NumericSummary, side: Side, k: float, *, whole: bool) -> tuple[float, str]:
    """The bound that one statistic suggests, and its derivation."""
    mean, std = summary.mean or 0.0, summary.std or 0.0
    sign = "−" if side == "lower" else "+"
    value = mean - k * std if side == "lower" else mean + k * std
    if whole:
        value = math.floor(value) if side == "lower" else math.ceil(value)
    reason = f"mean {readable(mean)} {sign} {k:g} × std {readable(std)}"
    limit = min(max(value, stat.low), stat.high)
    if limit != value:
        reason += f", clamped to {limit:g}"
        value = int(limit) if whole else float(limit)
    return value, reason


def _why_unknown(keys: list[str], analysis: Analysis) -> str:
    names = " or ".join(keys)
    if any(key in analysis.numeric for key in keys):
        return f"fewer than two rows have a value of {names}"
    if any(key in analysis.text for key in keys):
        return f"{names} is not a number"
    return f"the analysis has no statistic {names}"


def write_recipe(recipe: Mapping[str, Any], path: Path) -> None:
    """Writes a recipe as JSON (`.json`) or YAML, keys in their order, whole or not at all."""
    if path.suffix == ".json":
        text = json.dumps(recipe, ensure_ascii=False, indent=2) + "\n"
    else:
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    atomic_write(path, text)
