"""Parameters as search algorithms see them: ranges that they know, and coordinates in (0, 1) for all else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from raysandbox.hpo.space import Parameter

__all__ = ["Axis", "axis_of", "coordinate_of", "varies"]

_LOWEST = 2.0**-53  # quantile functions are asked inside of (0, 1) only
_STEPS = 60  # of a bisection; more than a double's digits


class Axis(Protocol):
    """One parameter in an algorithm's terms."""

    @property
    def parameter(self) -> Parameter:
        """Whose axis it is."""
        ...

    @property
    def coordinate(self) -> bool:
        """Whether the algorithm sees a coordinate in (0, 1), which the parameter's value need not tell again."""
        ...

    def domain(self) -> Any:
        """The range, as Ray Tune writes it."""
        ...

    def value(self, seen: Any) -> Any:
        """The parameter's value for what the algorithm proposed."""
        ...

    def seen(self, value: Any) -> Any:
        """What an algorithm would have proposed for a value."""
        ...


@dataclass(frozen=True)
class RangeAxis:
    """A range of floats or whole numbers, as it is or by its logarithm."""

    parameter: Parameter
    coordinate = False

    def domain(self) -> Any:
        """`tune.uniform`, `tune.loguniform` or `tune.randint`, whose upper bound is exclusive."""
        from ray import tune

        low, high = self.parameter.low, self.parameter.high
        if self.parameter.kind == "int_uniform":
            return tune.randint(int(low), int(high) + 1)
        return tune.uniform(low, high) if self.parameter.kind == "uniform" else tune.loguniform(low, high)

    def value(self, seen: Any) -> Any:
        """The number itself, of Python's own types, inside of the range."""
        number = int(seen) if self.parameter.kind == "int_uniform" else float(seen)
        return min(max(number, self.parameter.low), self.parameter.high)

    def seen(self, value: Any) -> Any:
        """The number itself."""
        return value


@dataclass(frozen=True)
class ChoiceAxis:
    """One of a few values, by its place: values of any type, and `1` beside `True`, are no matter then."""

    parameter: Parameter
    coordinate = False

    def domain(self) -> Any:
        """`tune.choice` of the places."""
        from ray import tune

        return tune.choice(list(range(len(self.parameter.values))))

    def value(self, seen: Any) -> Any:
        """The value at a place."""
        return self.parameter.values[int(seen)]

    def seen(self, value: Any) -> Any:
        """The place of a value."""
        return _place(self.parameter.values, value)


@dataclass(frozen=True)
class CoordinateAxis:
    """Anything by its quantile function: uniform in (0, 1), so that its distribution is the algorithm's prior."""

    parameter: Parameter
    coordinate = True

    def domain(self) -> Any:
        """`tune.uniform(0, 1)`."""
        from ray import tune

        return tune.uniform(0.0, 1.0)

    def value(self, seen: Any) -> Any:
        """The quantile."""
        return self.parameter.at(min(max(float(seen), _LOWEST), 1 - _LOWEST))

    def seen(self, value: Any) -> Any:
        """A coordinate whose quantile it is: the middle of all of them."""
        return coordinate_of(self.parameter, value)


def varies(parameter: Parameter) -> bool:
    """Whether a parameter has more than one value."""
    if parameter.kind == "constant":
        return False
    return parameter.at(_LOWEST) != parameter.at(1 - _LOWEST) or parameter.kind == "categorical"


def axis_of(parameter: Parameter, ranges: frozenset[str]) -> Axis:
    """A parameter as an algorithm sees it.

    Args:
        parameter: one that varies.
        ranges: kinds of parameters that the algorithm knows as they are.
    """
    if parameter.kind == "categorical":
        even = not parameter.probabilities
        return ChoiceAxis(parameter) if even and "categorical" in ranges else CoordinateAxis(parameter)
    return RangeAxis(parameter) if parameter.kind in ranges else CoordinateAxis(parameter)


def coordinate_of(parameter: Parameter, value: Any) -> float:
    """The middle of the coordinates at which a parameter's quantile function has a value.

    The function is monotone, in either direction; a value between its steps gets the coordinate of the step.
    """
    if parameter.kind == "categorical":
        values: Sequence[Any] = parameter.values
        weights = list(parameter.probabilities or [1 / len(values)] * len(values))
        place = _place(values, value)
        return (sum(weights[:place]) + weights[place] / 2) / sum(weights)
    falling = parameter.at(_LOWEST) > parameter.at(1 - _LOWEST)

    def edge(strictly: bool) -> float:
        low, high = _LOWEST, 1 - _LOWEST
        for _ in range(_STEPS):
            middle = (low + high) / 2
            gap = parameter.at(middle) - value
            ahead = -gap if falling else gap
            reached = ahead > 0 or (ahead == 0 and not strictly)
            low, high = (low, middle) if reached else (middle, high)
        return high

    return (edge(strictly=False) + edge(strictly=True)) / 2


def _place(values: Sequence[Any], value: Any) -> int:
    texts = [json.dumps(each, sort_keys=True, default=str) for each in values]
    return texts.index(json.dumps(value, sort_keys=True, default=str))
