"""Parameters as search algorithms see them: ranges that they know, and coordinates in (0, 1) for all else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from raysandbox.core.keys import canonical_json

if TYPE_CHECKING:
    from raysandbox.hpo.space import Parameter

__all__ = ["Axis", "axis_of", "varies"]

_LOWEST = 2.0**-53  # quantile functions are asked inside of (0, 1) only


class Axis(Protocol):
    """One parameter in an algorithm's terms."""

    @property
    def parameter(self) -> Parameter:
        """Whose axis it is."""
        ...

    @property
    def coordinate(self) -> bool:
        """Whether the algorithm sees a coordinate in (0, 1), which the value need not tell exactly."""
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

    @property
    def _ends(self) -> tuple[float, float]:
        return self.parameter.at(0.0), self.parameter.at(1.0)

    def domain(self) -> Any:
        """`tune.uniform`, `tune.loguniform` or `tune.randint`, whose upper bound is exclusive."""
        from ray import tune

        low, high = self._ends
        if self.parameter.kind == "int_uniform":
            return tune.randint(int(low), int(high) + 1)
        return tune.uniform(low, high) if self.parameter.kind == "uniform" else tune.loguniform(low, high)

    def value(self, seen: Any) -> Any:
        """The number itself, of Python's own types, inside of the range."""
        low, high = self._ends
        number = int(seen) if self.parameter.kind == "int_uniform" else float(seen)
        return min(max(number, low), high)

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
        return [canonical_json(each) for each in self.parameter.values].index(canonical_json(value))


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
        """The value at a quantile."""
        return self.parameter.at(min(max(float(seen), _LOWEST), 1 - _LOWEST))

    def seen(self, value: Any) -> Any:
        """A quantile whose value it is."""
        return self.parameter.quantile(value)


def varies(parameter: Parameter) -> bool:
    """Whether a parameter has more than one value."""
    if parameter.size is not None:
        return parameter.size > 1
    return parameter.at(_LOWEST) != parameter.at(1 - _LOWEST)


def axis_of(parameter: Parameter, ranges: frozenset[str]) -> Axis:
    """A parameter as an algorithm sees it.

    Args:
        parameter: one that varies.
        ranges: kinds of parameters that the algorithm knows as they are. Categories that are not equally
            likely are none of them.
    """
    if parameter.kind not in ranges or parameter.probabilities is not None:
        return CoordinateAxis(parameter)
    return ChoiceAxis(parameter) if parameter.kind == "categorical" else RangeAxis(parameter)
