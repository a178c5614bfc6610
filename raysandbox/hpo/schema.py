"""What `hpo_config` may hold: a wandb sweep as it is, with keys of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raysandbox.config.documents import Document, KeyPath, load_document
from raysandbox.config.schema import SandboxConfig
from raysandbox.config.validation import fit
from raysandbox.core.errors import ConfigError, Problem, UserError, did_you_mean
from raysandbox.hpo.algorithms import SCHEDULERS, SEARCH_ALGORITHMS, read_algorithm
from raysandbox.hpo.assign import Addresses, with_values
from raysandbox.hpo.objective import Objective, find_objective
from raysandbox.hpo.parameters import algorithm_problems, read_parameters
from raysandbox.hpo.space import Parameter, SearchSpace
from raysandbox.hpo.sweep_form import NO_MEANING, SweepForm
from raysandbox.hpo.verification import Values, check_values
from raysandbox.sandbox.paths import PathMap
from raysandbox.sandbox.plan import ExperimentPlan

__all__ = ["Metric", "Search", "read_search"]

_SEEDS = "seeds"
_RESOURCES = {"num_cpus": "CPU", "cpu": "CPU", "num_gpus": "GPU", "gpu": "GPU"}


@dataclass(frozen=True)
class Metric:
    """What is optimised, and from what value on the search may end."""

    name: str
    goal: Literal["minimize", "maximize"]
    target: float | None

    def reached(self, value: float) -> bool:
        """Whether a value is as good as the target."""
        if self.target is None:
            return False
        return value >= self.target if self.goal == "maximize" else value <= self.target


@dataclass(frozen=True)
class Search:
    """A search, complete and checked.

    Attributes:
        name: of the search.
        method: grid, random, or bayes for every adaptive algorithm.
        metric: what is optimised.
        objective: the metric in the outputs of a trial.
        space: the parameters.
        addresses: parameter → dotted paths from the root of the configuration where its value goes.
        num_points: how many points are tried; None until time_budget_s or the target ends the search.
        seeds: repeats of every point; () for one without a seed.
        seed_addresses: where a repeat's seed goes.
        seed: of the sampling.
        early_terminate: wandb's hyperband: type, max_iter and s or min_iter, eta, strict; None without.
        search_alg: `{"type": name, **parameters}`; None for grid and random.
        scheduler: likewise; None without.
        max_concurrent: the most trials at once; None for as many as fit.
        resources_per_trial: bundles of a trial's placement group, by Ray's resource names; None by default.
        time_budget_s: seconds after which no trial starts and running ones stop.
        trial_timeout_s: seconds after which a trial fails.
        points_to_evaluate: points that come first; what one leaves out is drawn for it.
        rerun_failed: whether a resumed search runs failed trials again.
        raw: the file's content.
    """

    name: str
    method: Literal["grid", "random", "bayes"]
    metric: Metric
    objective: Objective
    space: SearchSpace
    addresses: Mapping[str, tuple[str, ...]]
    num_points: int | None = None
    seeds: tuple[int, ...] = ()
    seed_addresses: tuple[str, ...] = ()
    seed: int = 42
    early_terminate: Mapping[str, Any] | None = None
    search_alg: Mapping[str, Any] | None = None
    scheduler: Mapping[str, Any] | None = None
    max_concurrent: int | None = None
    resources_per_trial: tuple[Mapping[str, float], ...] | None = None
    time_budget_s: float | None = None
    trial_timeout_s: float | None = None
    points_to_evaluate: tuple[Mapping[str, Any], ...] = ()
    rerun_failed: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_trials(self) -> int | None:
        """Points times repeats."""
        return None if self.num_points is None else self.num_points * max(1, len(self.seeds))

    def trial_config(self, config: SandboxConfig, params: Mapping[str, Any], seed: int | None = None) -> SandboxConfig:
        """The configuration of one trial: the search's, with some values replaced and without `hpo_config`.

        Args:
            config: of the search; not changed.
            params: parameter → value; parameters that are left out keep the configuration's value.
            seed: of this repeat; None sets none.

        Raises:
            ConfigError: a value cannot stand where it goes.
        """
        values = [(address, value) for name, value in params.items() for address in self.addresses[name]]
        if seed is not None:
            values += [(address, seed) for address in self.seed_addresses]
        return with_values(config, values)


def read_search(
    config: SandboxConfig, plan: ExperimentPlan, paths: PathMap | None = None
) -> tuple[Search | None, list[Problem]]:
    """Reads and checks the `hpo_config` of a configuration.

    Args:
        config: the configuration, with `hpo_config`.
        plan: of the same configuration without `hpo_config`.
        paths: where inputs are looked up, as for the plan; the current directory by default.

    Returns:
        the search, None without `hpo_config` or when it has errors; every problem, errors and warnings.
    """
    given = config.settings.hpo_config
    if given is None:
        return None, []
    if isinstance(given, str):
        try:
            document, base = load_document(Path(given).expanduser(), given), ()
        except ConfigError as error:
            return None, list(error.problems)
        raw = document.data
    else:
        document, base, raw = config.document, ("hpo_config",), given
    reader = _Reader(config, plan, document, base, paths or PathMap(config.settings.work_path))
    if not isinstance(raw, dict):
        return None, [reader.note((), "is not a mapping", "start with method, metric and parameters")]
    search = reader.read(raw)
    return (None if any(p.severity == "error" for p in reader.problems) else search), reader.problems


class _Reader:
    def __init__(
        self, config: SandboxConfig, plan: ExperimentPlan, document: Document, base: KeyPath, paths: PathMap
    ) -> None:
        self.config = config
        self.plan = plan
        self.document = document
        self.base = base
        self.paths = paths
        self.problems: list[Problem] = []

    def note(self, path: KeyPath, message: str, fix: str = "", **more: Any) -> Problem:
        """A problem at a path of the sweep file."""
        return self.document.problem((*self.base, *path), message, fix, **more)

    def add(self, path: KeyPath, message: str, fix: str = "", **more: Any) -> None:
        self.problems.append(self.note(path, message, fix, **more))

    def read(self, raw: dict[str, Any]) -> Search | None:
        self._ignore(raw)
        known = {k: v for k, v in raw.items() if v is not None and k not in (*NO_MEANING, "metrics", "parameters")}
        if known.get("method") == "custom":
            self.add(("method",), "custom is for wandb's own scheduler jobs", "write search_alg: optuna or ax instead")
            known.pop("method")
        form, problems = fit(SweepForm, known, self.note)
        self.problems += problems
        parameters, problems = read_parameters(raw.get("parameters"), self.note)
        self.problems += problems
        search_alg, scheduler = self._algorithms(known)
        addresses = self._addresses(parameters)
        objective = self._objective(raw.get("metric"), _stops_early(known, scheduler))
        if form is None:
            return None
        method, search_alg = self._method(form, search_alg, known)
        space = SearchSpace(tuple(parameter for parameter, _ in parameters.values()))
        self.problems += algorithm_problems(method, search_alg, scheduler, parameters, self.note)
        num_points = self._num_points(form, method, space, search_alg)
        points = self._points(form, space)
        seeds, seed_addresses = self._seeds(form)
        self._verify(parameters, addresses, seeds, seed_addresses)
        if objective is None or method is None:
            return None
        return Search(
            name=form.sweep_name or form.name or self.config.settings.experiment_name,
            method=method,
            metric=Metric(form.metric.name, form.metric.goal, form.metric.target),
            objective=objective,
            space=space,
            addresses=addresses,
            num_points=num_points,
            seeds=seeds,
            seed_addresses=seed_addresses,
            seed=form.seed,
            early_terminate=form.early_terminate and form.early_terminate.model_dump(exclude_none=True),
            search_alg=search_alg,
            scheduler=scheduler,
            max_concurrent=form.max_concurrent,
            resources_per_trial=_bundles(form.resources_per_trial),
            time_budget_s=form.time_budget,
            trial_timeout_s=form.trial_timeout,
            points_to_evaluate=points,
            rerun_failed=form.rerun_failed,
            raw=raw,
        )

    def _ignore(self, raw: Mapping[str, Any]) -> None:
        """Warns of what has no meaning here, by name."""
        for key, why in NO_MEANING.items():
            if raw.get(key) is not None:
                self.add((key,), f"'{key}' has no effect here{': ' if why else ''}{why}", severity="warning")
        if raw.get("metrics") is not None:
            self.add(("metrics",), "several metrics at once are not in this version", "write one `metric`")
        metric, stop = raw.get("metric"), raw.get("early_terminate")
        for key in ("impute", "impute_while_running"):
            if isinstance(metric, Mapping) and metric.get(key) is not None:
                text = f"'{key}' has no effect here: a trial without the metric counts as failed"
                self.add(("metric", key), text, severity="warning")
        if isinstance(stop, Mapping) and stop.get("strict") is False:
            text = "'strict: false' has no effect here: a trial is judged by its value at the rung"
            self.add(("early_terminate", "strict"), text, severity="warning")

    def _algorithms(self, known: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        for key, table in (("search_alg", SEARCH_ALGORITHMS), ("scheduler", SCHEDULERS)):
            algorithm, problems = (None, []) if key not in known else read_algorithm(table, key, known[key], self.note)
            found.append(algorithm)
            self.problems += problems
        if "scheduler" in known and "early_terminate" in known:
            self.add(("scheduler",), "stands beside early_terminate, which is a scheduler too", "keep one")
        return found[0], found[1]

    def _addresses(self, parameters: Mapping[str, tuple[Parameter, KeyPath]]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, (_, where) in parameters.items():
            try:
                found[name] = self._places.find(name)
            except UserError as error:
                self.add(where, str(error))
        taken: dict[str, str] = {}
        for name, paths in found.items():
            for path in paths:
                if path in taken:
                    self.add(parameters[name][1], f"'{name}' and '{taken[path]}' are the same place", "keep one")
                taken[path] = name
        return found

    @cached_property
    def _places(self) -> Addresses:
        return Addresses(self.config, self.plan, self.paths)

    def _objective(self, metric: Any, stops_early: bool) -> Objective | None:
        name = metric.get("name") if isinstance(metric, Mapping) else None
        if not isinstance(name, str):
            return None  # the form's problem
        try:
            objective = find_objective(name, self.plan)
        except UserError as error:
            self.add(("metric", "name"), str(error))
            return None
        if stops_early and objective.known_at_end_only:
            trainings = [job.entry.config.meta_name for job in self.plan.jobs if job.hook.type_name == "TrainModelHook"]
            example = f"such as {trainings[0]}.loss" if trainings and trainings[0] else "<meta_name>.<key>"
            self.add(
                ("metric", "name"),
                f"'{name}' is known at the end of a trial only: nothing can be stopped early by it",
                f"name a metric that a job reports while it runs, {example}",
                severity="warning",
            )
        return objective

    def _method(
        self, form: SweepForm, search_alg: dict[str, Any] | None, known: Mapping[str, Any]
    ) -> tuple[Literal["grid", "random", "bayes"] | None, dict[str, Any] | None]:
        """The method, and the algorithm of an adaptive one."""
        name = None if search_alg is None else search_alg["type"]
        follows: Any = name if name in (None, "grid", "random") else "bayes"
        method = form.method or follows
        if form.method is not None and follows is not None and form.method != follows:
            fix = f"write method: {follows}, or remove search_alg"
            self.add(("search_alg",), f"'{name}' does not go with method: {form.method}", fix)
        if method is None and "method" not in known and "search_alg" not in known:
            self.add(("method",), "is required", "add method: grid, random or bayes")
        if method == "bayes" and "search_alg" not in known:
            message = "is Optuna's tree-structured Parzen estimator here; wandb's is a Gaussian process"
            fix = "search_alg: {type: optuna, sampler: gp} is one too"
            self.add(("method",), message, fix, severity="warning")
            at_method = lambda path, *rest: self.note(("method",), *rest)  # noqa: E731
            search_alg, problems = read_algorithm(SEARCH_ALGORITHMS, "search_alg", "optuna", at_method)
            self.problems += problems
        return method, search_alg if method == "bayes" else None

    def _num_points(
        self, form: SweepForm, method: str | None, space: SearchSpace, search_alg: Mapping[str, Any] | None
    ) -> int | None:
        caps = [cap for cap in (form.run_cap, form.sweep_max_count) if cap is not None]
        if method == "grid":
            if any(parameter.size is None for parameter in space.parameters):
                return None
            caps.append(space.grid_size())
        elif method is not None and not caps and form.time_budget is None and form.metric.target is None:
            fix = "add run_cap: 20, or time_budget: 2h, or metric.target"
            self.add((), f"method {method} would never end", fix)
        if not caps and search_alg is not None and SEARCH_ALGORITHMS[search_alg["type"]].needs_number:
            self.add(("search_alg",), f"{search_alg['type']} must know the number of points", "add run_cap")
        return min(caps) if caps else None

    def _points(self, form: SweepForm, space: SearchSpace) -> tuple[Mapping[str, Any], ...]:
        given = {parameter.name: parameter for parameter in space.parameters}
        points: list[Mapping[str, Any]] = []
        for index, point in enumerate(form.points_to_evaluate):
            base: KeyPath = ("points_to_evaluate", index)
            for name, value in point.items():
                if name not in given:
                    self.add((*base, name), f"names no parameter '{name}'", did_you_mean(name, given))
                elif not given[name].contains(value):
                    text = f"{value!r} lies outside of the search space of {name}"
                    self.add((*base, name), text, f"it is {given[name].to_json()}")
            if not point:
                self.add(base, "gives no values", "write parameter: value")
            points.append(dict(point))
        return tuple(points)

    def _seeds(self, form: SweepForm) -> tuple[tuple[int, ...], tuple[str, ...]]:
        seeds = tuple(range(form.seeds) if isinstance(form.seeds, int) else form.seeds or ())
        wanted = form.seed_parameter
        if not seeds:
            if wanted is not None:
                self.add(("seed_parameter",), "has no effect without seeds", "add seeds: 3", severity="warning")
            return (), ()
        if wanted is None:
            found = self._places.seeds()
            if not found:
                fix = "name one by seed_parameter, or remove seeds"
                self.add(("seeds",), "no job has a `seed` that repeats could differ in", fix)
            return seeds, found
        paths: list[str] = []
        for name in [wanted] if isinstance(wanted, str) else wanted:
            try:
                paths += self._places.find(name)
            except UserError as error:
                self.add(("seed_parameter",), str(error))
        return seeds, tuple(dict.fromkeys(paths))

    def _verify(
        self,
        parameters: Mapping[str, tuple[Parameter, KeyPath]],
        addresses: Mapping[str, tuple[str, ...]],
        seeds: Sequence[int],
        seed_addresses: tuple[str, ...],
    ) -> None:
        """Plans some points of the space: what does not fit is found before anything runs."""
        placed = {name: parameters[name] for name in addresses}
        searched = {path for paths in addresses.values() for path in paths}
        for path in searched.intersection(seed_addresses):
            self.add(("seeds",), f"{path} is a parameter of the search too", "keep one")
        if seed_addresses:
            ends = Parameter(_SEEDS, "categorical", values=tuple(sorted({min(seeds), max(seeds)})))
            placed[_SEEDS] = (ends, ("seeds",))
        values = Values(self.config, self.plan, self.paths, {**addresses, _SEEDS: seed_addresses})
        self.problems += check_values(values, placed, self.note)


def _stops_early(known: Mapping[str, Any], scheduler: Mapping[str, Any] | None) -> bool:
    return bool(known.get("early_terminate")) or (scheduler is not None and scheduler["type"] != "fifo")


def _bundles(
    given: dict[str, float] | list[dict[str, float]] | None,
) -> tuple[Mapping[str, float], ...] | None:
    """`resources_per_trial` by Ray's resource names."""
    if not given:
        return None
    bundles = given if isinstance(given, list) else [given]
    return tuple({_RESOURCES.get(name.lower(), name): amount for name, amount in bundle.items()} for bundle in bundles)
