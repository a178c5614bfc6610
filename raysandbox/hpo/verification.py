"""Whether the values of a search fit the configuration, found without running: some points are planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from raysandbox.config.documents import KeyPath
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, Problem
from raysandbox.hpo.assign import with_values
from raysandbox.hpo.space import Parameter
from raysandbox.sandbox.plan import ExperimentPlan, make_plan

__all__ = ["Values", "check_values"]

Note = Callable[..., Problem]

_MOST_CATEGORIES = 16  # of one parameter that are tried each
_TAILS = 0.001  # of an unbounded distribution, what is tried as its ends


class Values:
    """Plans a configuration with other values.

    Args:
        config: the configuration.
        plan: of it, without `hpo_config`.
        addresses: name → dotted paths where its value goes.
    """

    def __init__(self, config: SandboxConfig, plan: ExperimentPlan, addresses: Mapping[str, Sequence[str]]) -> None:
        self._config = config
        self._addresses = addresses
        self._known = {_identity(problem) for problem in plan.problems}

    def problems(self, values: Mapping[str, Any]) -> list[Problem]:
        """What would stop a run with these values and would not stop one without them."""
        placed = [(address, value) for name, value in values.items() for address in self._addresses[name]]
        try:
            found: Iterable[Problem] = make_plan(with_values(self._config, placed)).problems
        except ConfigError as error:
            found = error.problems
        stops = [problem for problem in found if problem.severity == "error" or problem.missing_path]
        return [problem for problem in stops if _identity(problem) not in self._known]


def _identity(problem: Problem) -> tuple[str | None, str, str]:
    return problem.file, problem.path, problem.message


def check_values(values: Values, parameters: Mapping[str, tuple[Parameter, KeyPath]], note: Note) -> Iterator[Problem]:
    """Problems of the middle of the space, of its ends and of its categories, at the parameters' lines.

    What a single parameter brings is its problem; what comes of several values together is a warning, since
    other points may do.

    Args:
        values: plans the configuration.
        parameters: those that have an address, and where they stand.
        note: makes a problem at a path of the sweep file.
    """
    kept = dict(parameters)
    middle = {name: parameter.at(0.5) for name, (parameter, _) in kept.items()}
    for point in _points(kept):
        point = {name: point[name] for name in kept}
        others = {name: middle[name] for name in kept} if point != {n: middle[n] for n in kept} else {}
        together = values.problems(point)
        if not together:
            continue
        alone = {_identity(problem) for problem in values.problems(others)} if others else set[Any]()
        blamed = False
        for name, (parameter, where) in list(kept.items()):
            found = [p for p in values.problems({**others, name: point[name]}) if _identity(p) not in alone]
            if not found:
                continue
            blamed = True
            del kept[name]
            certain = parameter.bounded or not others
            severity = found[0].severity if certain else "warning"
            text = f"{point[name]!r} does not fit: {found[0].message}"
            yield note(where, text, found[0].fix, severity=severity, missing_path=found[0].missing_path)
        if not blamed:
            shown = ", ".join(f"{name}={value!r}" for name, value in point.items())
            text = f"some values do not go together ({shown}): {together[0].message}"
            yield note(("parameters",), text, together[0].fix, severity="warning")
            return


def _points(parameters: Mapping[str, tuple[Parameter, KeyPath]]) -> Iterator[dict[str, Any]]:
    """The middle, both ends, and as many more as show every category."""
    given = {name: parameter for name, (parameter, _) in parameters.items()}
    for u in (0.5, 0.0, 1.0):
        yield {
            name: parameter.at(u if parameter.bounded else min(max(u, _TAILS), 1 - _TAILS))
            for name, parameter in given.items()
        }
    most = max((len(parameter.values) for parameter in given.values()), default=0)
    for index in range(min(most, _MOST_CATEGORIES)):
        yield {
            name: parameter.values[index % len(parameter.values)] if parameter.values else parameter.at(0.5)
            for name, parameter in given.items()
        }
