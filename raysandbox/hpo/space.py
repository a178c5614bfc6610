"""Search spaces: every distribution of wandb's sweeps, by its quantile function.

A parameter is a function from (0, 1) to values, so that any algorithm that searches the unit cube searches
any distribution. The laws are those of wandb's sweep documentation; what is quantised is
`round(x / q) * q`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from raysandbox.core.errors import MissingExtraError
from raysandbox.core.keys import canonical_json

__all__ = ["BETA", "ENUMERABLE", "KINDS", "NORMAL", "RANGED", "Parameter", "SearchSpace"]

RANGED = (
    "int_uniform",
    "uniform",
    "q_uniform",
    "log_uniform",
    "q_log_uniform",
    "log_uniform_values",
    "q_log_uniform_values",
    "inv_log_uniform",
    "inv_log_uniform_values",
)
NORMAL = ("normal", "q_normal", "log_normal", "q_log_normal")
BETA = ("beta", "q_beta")
KINDS = ("constant", "categorical", *RANGED, *NORMAL, *BETA)
ENUMERABLE = ("constant", "categorical", "int_uniform", "q_uniform")  # what method grid goes through

_TINY = 2.0**-53  # a quantile of 0 or 1 would be infinite for a normal law
_SAMPLES = 2**53


@dataclass(frozen=True)
class Parameter:
    """One parameter and its distribution.

    Attributes:
        name: as in the sweep file; nested ones joined by dots.
        kind: one of `KINDS`, wandb's name of the distribution.
        low: `min`: of log_uniform and inv_log_uniform the exponent, otherwise the value.
        high: `max`, likewise.
        mu: mean of the normal law, or of the logarithm.
        sigma: standard deviation of the same.
        a: first parameter of the beta law.
        b: second parameter of the beta law.
        q: step of quantised kinds; values are whole numbers when it is one by type.
        values: the categories; the one value of a constant.
        probabilities: of the categories, sum 1; None when they are equally likely.
    """

    name: str
    kind: str
    low: float | None = None
    high: float | None = None
    mu: float = 0.0
    sigma: float = 1.0
    a: float = 1.0
    b: float = 1.0
    q: float = 1
    values: tuple[Any, ...] = ()
    probabilities: tuple[float, ...] | None = None

    @property
    def quantised(self) -> bool:
        """Whether values are multiples of `q`."""
        return self.kind.startswith("q_")

    @property
    def bounded(self) -> bool:
        """Whether the values lie between two bounds."""
        return self.kind not in NORMAL

    @property
    def size(self) -> int | None:
        """How many values there are, when they can be enumerated; repeated categories count again."""
        if self.kind in ("constant", "categorical"):
            return len(self.values)
        if self.kind == "int_uniform":
            low, high = self._range()
            return int(high) - int(low) + 1
        if self.kind == "q_uniform":
            first, last = self._steps()
            return last - first + 1
        return None

    def choice(self, index: int) -> Any:
        """The value at a position of the enumeration, from 0.

        Raises:
            ValueError: the values cannot be enumerated.
        """
        if self.kind in ("constant", "categorical"):
            return self.values[index]
        if self.kind == "int_uniform":
            return int(self._range()[0]) + index
        if self.kind == "q_uniform":
            return self._multiple(self._steps()[0] + index)
        raise ValueError(f"{self.kind} cannot be enumerated")

    def choices(self) -> list[Any] | None:
        """All values, when they can be enumerated."""
        return None if self.size is None else [self.choice(index) for index in range(self.size)]

    def at(self, u: float) -> Any:
        """The value at a quantile.

        Args:
            u: between 0 and 1.

        Raises:
            MissingExtraError: a beta law without scipy.
        """
        if self.kind == "constant":
            return self.values[0]
        if self.kind == "categorical":
            return self.values[self._category(u)]
        if self.kind == "int_uniform":
            low, high = self._range()
            count = int(high) - int(low) + 1
            return int(low) + min(int(u * count), count - 1)
        value = self._continuous(u)
        return self._multiple(round(value / self.q)) if self.quantised else value

    def quantile(self, value: Any) -> float:
        """A quantile whose value this is, as near as the distribution comes to it.

        Of a category or whole number the middle of its interval; the inverse of `at`.

        Raises:
            ValueError: not a category, or not a number.
        """
        if self.kind == "constant":
            return 0.5
        if self.kind == "categorical":
            index = [canonical_json(each) for each in self.values].index(canonical_json(value))
            edges = self._edges()
            return (edges[index] + edges[index + 1]) / 2
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{value!r} is not a number")
        if self.kind == "int_uniform":
            low, high = self._range()
            return min(1.0, max(0.0, (value - int(low) + 0.5) / (int(high) - int(low) + 1)))
        return self._cumulative(value)

    def contains(self, value: Any) -> bool:
        """Whether the distribution can give a value (of a continuous one: to nine digits)."""
        try:
            nearest = self.at(self.quantile(value))
        except ValueError:
            return False
        if self.kind in ("constant", "categorical"):
            return canonical_json(nearest) == canonical_json(value)
        return math.isclose(nearest, value, rel_tol=1e-9, abs_tol=1e-12)

    def to_json(self) -> dict[str, Any]:
        """The parameter in the sweep file's own form, with its distribution named."""
        if self.kind == "constant":
            return {"value": self.values[0]}
        if self.kind == "categorical":
            likely = {} if self.probabilities is None else {"probabilities": list(self.probabilities)}
            return {"values": list(self.values), **likely}
        form: dict[str, Any] = {"distribution": self.kind}
        if self.kind in RANGED:
            form |= {"min": self.low, "max": self.high}
        elif self.kind in NORMAL:
            form |= {"mu": self.mu, "sigma": self.sigma}
        else:
            form |= {"a": self.a, "b": self.b}
        return form | ({"q": self.q} if self.quantised else {})

    def _range(self) -> tuple[float, float]:
        """`min` and `max`.

        Raises:
            ValueError: the kind has none.
        """
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name}: {self.kind} needs min and max")
        return self.low, self.high

    def _exponents(self) -> tuple[float, float]:
        """Logarithms of the least and the greatest value of the log-uniform kinds."""
        low, high = self._range()
        if self.kind.endswith("_values"):
            return math.log(low), math.log(high)
        return (-high, -low) if self.kind == "inv_log_uniform" else (low, high)

    def _continuous(self, u: float) -> float:
        """The value at a quantile before it is quantised."""
        if self.kind in NORMAL:
            value = NormalDist(self.mu, self.sigma).inv_cdf(min(max(u, _TINY), 1 - _TINY))
            return math.exp(value) if "log" in self.kind else value
        if self.kind in BETA:
            return float(_scipy_special().betaincinv(self.a, self.b, u))
        if "log" not in self.kind:
            low, high = self._range()
            return min(max(low + (high - low) * u, low), high)
        first, last = self._exponents()
        value = math.exp(first + (last - first) * u)
        if self.kind.endswith("_values"):  # where exp(log(max)) is a little more than max
            low, high = self._range()
            value = min(max(value, low), high)
        return value

    def _cumulative(self, value: float) -> float:
        """The inverse of `_continuous`; values outside of the distribution have quantile 0 or 1."""
        if "log" in self.kind:
            if value <= 0:
                return 0.0
            value = math.log(value)
        if self.kind in NORMAL:
            return NormalDist(self.mu, self.sigma).cdf(value)
        if self.kind in BETA:
            return float(_scipy_special().betainc(self.a, self.b, min(max(value, 0.0), 1.0)))
        first, last = self._exponents() if "log" in self.kind else self._range()
        return min(1.0, max(0.0, (value - first) / (last - first)))

    def _steps(self) -> tuple[int, int]:
        """The least and the greatest multiple of `q` that a q_uniform takes."""
        low, high = self._range()
        return round(low / self.q), round(high / self.q)

    def _multiple(self, steps: int) -> float:
        """A multiple of `q`, without the last digit's noise of 3 * 0.1."""
        return steps * self.q if isinstance(self.q, int) else float(f"{steps * self.q:.12g}")

    def _edges(self) -> list[float]:
        """Quantiles at which one category ends and the next begins, from 0 to 1."""
        count = len(self.values)
        if self.probabilities is None:
            return [index / count for index in range(count + 1)]
        return [min(1.0, math.fsum(self.probabilities[:index])) for index in range(count)] + [1.0]

    def _category(self, u: float) -> int:
        edges = self._edges()
        possible = [index for index in range(len(self.values)) if edges[index] < edges[index + 1]]
        return next((index for index in possible if u < edges[index + 1]), possible[-1])


@dataclass(frozen=True)
class SearchSpace:
    """The parameters of a search, in the order of the file."""

    parameters: tuple[Parameter, ...]

    def random_point(self, seed: int, index: int) -> dict[str, Any]:
        """A random point that depends on seed and index only; parameters are drawn independently.

        The quantile is 53 bits of the SHA-256 of seed, index and name: the same on every machine, and a
        parameter that is added leaves the values of the others as they are.
        """
        return {parameter.name: parameter.at(_draw(seed, index, parameter.name)) for parameter in self.parameters}

    def grid_size(self) -> int:
        """Number of points of the grid.

        Raises:
            ValueError: a parameter cannot be enumerated.
        """
        return math.prod(_size(parameter) for parameter in self.parameters)

    def grid_point(self, index: int) -> dict[str, Any]:
        """A point of the grid; of neighbours the last parameter differs first.

        Raises:
            ValueError: a parameter cannot be enumerated.
            IndexError: there is no such point.
        """
        if not 0 <= index < self.grid_size():
            raise IndexError(index)
        point: dict[str, Any] = {}
        for parameter in reversed(self.parameters):
            index, position = divmod(index, _size(parameter))
            point[parameter.name] = parameter.choice(position)
        return {parameter.name: point[parameter.name] for parameter in self.parameters}

    def to_json(self) -> dict[str, dict[str, Any]]:
        """All parameters in the sweep file's form."""
        return {parameter.name: parameter.to_json() for parameter in self.parameters}


def _size(parameter: Parameter) -> int:
    if parameter.size is None:
        raise ValueError(f"{parameter.name}: {parameter.kind} cannot be enumerated")
    return parameter.size


def _draw(seed: int, index: int, name: str) -> float:
    """A number in (0, 1)."""
    found = hashlib.sha256(f"{seed}\0{index}\0{name}".encode()).digest()
    return ((int.from_bytes(found[:8], "big") >> 11) + 0.5) / _SAMPLES


def _scipy_special() -> Any:
    try:
        from scipy import special
    except ImportError as error:
        raise MissingExtraError("scipy", "hpo", "a parameter with a beta distribution") from error
    return special
