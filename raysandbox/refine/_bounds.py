"""What refinements share: the bounds of filters, new values for them, changes, recipe files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, TypeAdapter, ValidationError

from raysandbox.core.component import OutputPath
from raysandbox.core.files import atomic_write
from raysandbox.ops.base import OPERATORS, Filter, Operator, Stat

__all__ = [
    "Change",
    "RecipePath",
    "Refinement",
    "Side",
    "as_written",
    "bounds_of",
    "clamped",
    "filter_class",
    "outwards",
    "statistics_of",
    "steps_of",
    "takes_fractions",
    "write_recipe",
]

Side = Literal["lower", "upper"]


def _recipe_suffix(path: str) -> str:
    if Path(path).suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"'{path}' must end in .yaml, .yml or .json")
    return path


RecipePath = Annotated[OutputPath, AfterValidator(_recipe_suffix)]


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


def steps_of(recipe: Mapping[str, Any]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Position, name and arguments of every step of a raw recipe; a step without arguments has none to set."""
    for position, step in enumerate(recipe.get("process") or []):
        if isinstance(step, str):
            yield position, step, {}
        else:
            for operator, arguments in step.items():
                yield position, operator, arguments or {}


def filter_class(operator: str) -> type[Filter] | None:
    """The class of a filter; None for another operator, or a name that none has."""
    cls: type[Any] = OPERATORS.get(operator) if operator in OPERATORS.names() else Operator
    return cls if issubclass(cls, Filter) else None


def statistics_of(cls: type[Filter], arguments: Mapping[str, Any]) -> tuple[Stat, ...]:
    """What a filter computes with these arguments of a recipe."""
    used = {key: value for key, value in arguments.items() if key not in cls.no_meaning_here}
    return cls.model_validate(used).statistics()


def bounds_of(stats: tuple[Stat, ...]) -> list[tuple[str, Side, list[Stat]]]:
    """Each argument that bounds statistics, which side it bounds, and the statistics."""
    found: dict[tuple[str, Side], list[Stat]] = {}
    for stat in stats:
        if stat.lower:
            found.setdefault((stat.lower, "lower"), []).append(stat)
        if stat.upper:
            found.setdefault((stat.upper, "upper"), []).append(stat)
    return [(argument, side, bounded) for (argument, side), bounded in found.items()]


def takes_fractions(cls: type[Operator], argument: str) -> bool:
    """Whether a field accepts 0.5, as a number or as text."""
    annotation: Any = cls.model_fields[argument].annotation
    try:
        TypeAdapter(annotation).validate_python("0.5")
    except ValidationError:
        return False
    return True


def outwards(value: float, side: Side, *, whole: bool) -> float:
    """An integer bound such that nothing inside the fractional one is lost; another bound as it is."""
    if not whole:
        return value
    return math.floor(value) if side == "lower" else math.ceil(value)


def clamped(value: float, stat: Stat, *, whole: bool) -> float:
    """The bound within the range that the statistic can take."""
    limit = min(max(value, stat.low), stat.high)
    if limit == value:
        return value
    return int(limit) if whole else float(limit)


def as_written(value: float, old: Any) -> Any:
    """A new bound in the form that the recipe gives the old one: "9/21" and "1KB" are texts."""
    return str(value) if isinstance(old, str) else value


def write_recipe(recipe: Mapping[str, Any], path: Path) -> None:
    """Writes a recipe as JSON (`.json`) or YAML, keys in their order, whole or not at all."""
    if path.suffix == ".json":
        text = json.dumps(recipe, ensure_ascii=False, indent=2) + "\n"
    else:
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    atomic_write(path, text)
