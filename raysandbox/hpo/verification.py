"""Whether the values of a search fit the configuration, found without running: some points are planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from raysandbox.config.documents import KeyPath
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, Problem
from raysandbox.core.names import is_remote
from raysandbox.hpo.assign import with_values
from raysandbox.hpo.space import Parameter
from raysandbox.sandbox.drafts import UNKNOWN, put_together, same_path
from raysandbox.sandbox.paths import PathMap, is_inside
from raysandbox.sandbox.plan import ExperimentPlan, PlannedJob, make_plan

__all__ = ["Values", "check_values", "outside"]

Note = Callable[..., Problem]

_MOST_CATEGORIES = 16  # of one parameter that are tried each
_TAILS = 0.001  # of an unbounded distribution, what is tried as its ends


def outside(plan: ExperimentPlan) -> Iterator[Problem]:
    """Outputs that all trials would write over each other."""
    work_dir = same_path(str(plan.config.settings.work_path))
    for job in plan.jobs:
        for path in (*_urls(plan, job), *job.paths.writes):
            if path != UNKNOWN and (is_remote(path) or not is_inside(same_path(path), work_dir)):
                message = f"job {job.entry.id}: every trial of the search would write '{path}'"
                yield plan.config.document.problem(job.entry.path, message, "put it below work_dir")


def _urls(plan: ExperimentPlan, job: PlannedJob) -> Iterator[str]:
    """Where a recipe exports to, when that is a URL: `paths` hold what can be looked at, and no URL."""
    recipe = put_together(job.entry, plan.config.document, lambda text: UNKNOWN).recipe
    if recipe is not None and job.hook.takes_recipe:
        path = recipe.data.get("export_path")
        if isinstance(path, str) and is_remote(path):
            yield path


class Values:
    """Plans a configuration with other values.

    Args:
        config: the configuration.
        plan: of it, without `hpo_config`.
        paths: where inputs are looked up.
        addresses: name → dotted paths where its value goes.
    """

    def __init__(
        self, config: SandboxConfig, plan: ExperimentPlan, paths: PathMap, addresses: Mapping[str, Sequence[str]]
    ) -> None:
        self._config = config
        self._paths = paths
        self._addresses = addresses
        self._known = {_identity(problem) for problem in (*plan.problems, *outside(plan))}

    def problems(self, values: Mapping[str, Any]) -> list[Problem]:
        """What would stop a run with these values and would not stop one without them."""
        placed = [(address, value) for name, value in values.items() for address in self._addresses[name]]
        try:
            plan = make_plan(with_values(self._config, placed), self._paths)
            found: Iterable[Problem] = (*plan.problems, *outside(plan))
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
    backgrounds = [{}, *_corners(kept)]
    done: list[dict[str, Any]] = []
    for whole in _points(kept):
        point = {name: whole[name] for name in kept}
        if point in done:
            continue
        done.append(point)
        together = values.problems(point)
        if not together:
            continue
        found = list(_blamed(values, point, backgrounds))
        for name, problem in found:
            parameter, where = kept.pop(name)
            severity = problem.severity if parameter.bounded or len(done) == 1 else "warning"
            text = f"{point[name]!r} does not fit: {problem.message}"
            yield note(where, text, problem.fix, severity=severity, missing_path=problem.missing_path)
        if not found:
            shown = ", ".join(f"{name}={value!r}" for name, value in point.items())
            text = f"some values do not go together ({shown}): {together[0].message}"
            yield note(("parameters",), text, together[0].fix, severity="warning")
            return


def _blamed(
    values: Values, point: Mapping[str, Any], backgrounds: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Problem]]:
    """The parameters whose value brings a problem whatever the others are, and the first problem of each.

    Args:
        values: plans the configuration.
        point: has problems.
        backgrounds: what the others are meanwhile; those that one leaves out stay as they are.
    """
    for name, value in point.items():
        found: list[Problem] = []
        for background in backgrounds:
            others = {other: background[other] for other in point if other != name and other in background}
            before = {_identity(problem) for problem in values.problems(others)}
            found = [p for p in values.problems({**others, name: value}) if _identity(p) not in before]
            if not found:
                break
        if found:
            yield name, found[0]


def _corners(parameters: Mapping[str, tuple[Parameter, KeyPath]]) -> list[dict[str, Any]]:
    """The middle, the lower and the upper end."""
    return [
        {name: p.at(u if p.bounded else min(max(u, _TAILS), 1 - _TAILS)) for name, (p, _) in parameters.items()}
        for u in (0.5, 0.0, 1.0)
    ]


def _points(parameters: Mapping[str, tuple[Parameter, KeyPath]]) -> Iterator[dict[str, Any]]:
    """The middle, the ends, neighbours at opposite ends, and as many more as show every category."""
    middle, low, high = _corners(parameters)
    yield from (middle, low, high)
    for one, other in ((low, high), (high, low)):  # a lower bound above its upper bound
        yield {name: (one, other)[index % 2][name] for index, name in enumerate(parameters)}
    given = {name: parameter for name, (parameter, _) in parameters.items()}
    most = max((len(p.values) for p in given.values()), default=0)
    for index in range(1, min(most, _MOST_CATEGORIES) - 1):  # the first and the last are ends
        yield {
            name: p.values[index % len(p.values)] if p.kind == "categorical" else middle[name]
            for name, p in given.items()
        }
