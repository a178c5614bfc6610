"""What `hpo_config` may hold: a wandb sweep as it is, with keys of our own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from raysandbox.config.documents import Document, KeyPath, load_document
from raysandbox.config.schema import SandboxConfig
from raysandbox.config.validation import fit
from raysandbox.core.errors import ConfigError, Problem, UserError, did_you_mean
from raysandbox.hpo.algorithms import SCHEDULERS, SEARCH_ALGORITHMS, read_algorithm
from raysandbox.hpo.objective import Objective, find_objective
from raysandbox.hpo.parameters import bayes_problems, grid_problems, read_parameters
from raysandbox.hpo.space import Parameter, SearchSpace
from raysandbox.sandbox.plan import ExperimentPlan

__all__ = ["Metric", "Search", "read_search"]

_NO_MEANING = {
    "program": "a trial runs the pipelines of the configuration",
    "command": "a trial runs the pipelines of the configuration",
    "entity": "wandb's own settings decide",
    "project": "project_name of the configuration decides",
    "controller": "Ray Tune drives the search",
    "imports": "a trial runs the pipelines of the configuration",
    "job": "a trial runs the pipelines of the configuration",
    "image_uri": "trials run on the Ray cluster",
    "apiVersion": "",
    "kind": "",
    "launch": "trials run on the Ray cluster",
    "settings": "",
}
_TIME = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
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
        points_to_evaluate: complete points that come first.
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


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _MetricForm(_Model):
    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = Field(None, allow_inf_nan=False)
    impute: Any = None
    impute_while_running: Any = None


class _Hyperband(_Model):
    type: Literal["hyperband"]
    max_iter: int | None = Field(None, ge=1)
    min_iter: int | None = Field(None, ge=1)
    s: int | None = Field(None, ge=1)
    eta: float = Field(3, gt=1)
    strict: bool | None = None

    @model_validator(mode="after")
    def _one_form(self) -> _Hyperband:
        if self.min_iter is None and (self.max_iter is None or self.s is None):
            raise ValueError("needs min_iter, or max_iter together with s")
        if self.max_iter is not None and self.s is not None and self.max_iter < self.eta:
            raise ValueError(f"max_iter {self.max_iter} / eta {self.eta:g} is below 1: there is no rung")
        return self


class _SweepForm(_Model):
    """The keys of the file; `parameters`, `search_alg` and `scheduler` are read on their own."""

    method: Literal["grid", "random", "bayes"] | None = None
    metric: _MetricForm
    early_terminate: _Hyperband | None = None
    run_cap: int | None = Field(None, ge=1)
    sweep_max_count: int | None = Field(None, ge=1)
    name: str | None = None
    sweep_name: str | None = None
    description: str | None = None
    max_concurrent: int | None = Field(None, ge=1)
    resources_per_trial: dict[str, float] | list[dict[str, float]] | None = None
    time_budget: float | None = Field(None, gt=0, allow_inf_nan=False)
    trial_timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    seeds: int | list[int] | None = None
    seed_parameter: str | list[str] | None = None
    points_to_evaluate: list[dict[str, Any]] = []
    seed: int = Field(42, ge=0)
    rerun_failed: bool = False
    parameters: Any = None
    search_alg: Any = None
    scheduler: Any = None

    @field_validator("time_budget", "trial_timeout", mode="before")
    @classmethod
    def _with_unit(cls, value: Any) -> Any:
        if not isinstance(value, str) or not _TIME.fullmatch(text := value.replace(" ", "").lower()):
            if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
                raise ValueError(f"should be seconds, or a number with s, m, h or d such as 30m, not {value!r}")
            return value
        return sum(float(part[:-1]) * _SECONDS[part[-1]] for part in re.findall(r"[\d.]+[smhd]", text))

    @field_validator("seeds")
    @classmethod
    def _some_seeds(cls, value: int | list[int] | None) -> int | list[int] | None:
        given = list(range(value)) if isinstance(value, int) else value
        if given is not None and (not given or min(given) < 0 or len(set(given)) < len(given)):
            raise ValueError("should be a number of repeats from 1 on, or a list of different seeds from 0 on")
        return value

    @field_validator("resources_per_trial")
    @classmethod
    def _not_negative(cls, value: Any) -> Any:
        for bundle in value if isinstance(value, list) else [value or {}]:
            if any(not math.isfinite(amount) or amount < 0 for amount in bundle.values()):
                raise ValueError("amounts should be at least 0")
        return value


def read_search(config: SandboxConfig, plan: ExperimentPlan) -> tuple[Search | None, list[Problem]]:
    """Reads and checks the `hpo_config` of a configuration.

    Args:
        config: the configuration, with `hpo_config`.
        plan: of the same configuration without `hpo_config`.

    Returns:
        the search, None without `hpo_config` or when it has errors; every problem, errors and warnings.
    """
    given = config.settings.hpo_config
    if given is None:
        return None, []
    if isinstance(given, str):
        try:
            document, base = load_document(given), ()
        except ConfigError as error:
            return None, [replace(p, path=p.path) for p in error.problems]
        raw = document.data
    else:
        document, base, raw = config.document, ("hpo_config",), given
    reader = _Reader(config, plan, document, base)
    if not isinstance(raw, dict):
        return None, [reader.note((), "is not a mapping", "start with method, metric and parameters")]
    search = reader.read(raw)
    return (None if any(p.severity == "error" for p in reader.problems) else search), reader.problems


class _Reader:
    def __init__(self, config: SandboxConfig, plan: ExperimentPlan, document: Document, base: KeyPath) -> None:
        self.config = config
        self.plan = plan
        self.document = document
        self.base = base
        self.problems: list[Problem] = []

    def note(self, path: KeyPath, message: str, fix: str = "", **more: Any) -> Problem:
        """A problem at a path of the sweep file."""
        return self.document.problem((*self.base, *path), message, fix, **more)

    def add(self, path: KeyPath, message: str, fix: str = "", **more: Any) -> None:
        self.problems.append(self.note(path, message, fix, **more))

    def read(self, raw: dict[str, Any]) -> Search | None:
        self._ignore(raw)
        known = {k: v for k, v in raw.items() if v is not None and k not in (*_NO_MEANING, "metrics")}
        if known.get("method") == "custom":
            self.add(("method",), "custom is for wandb's own scheduler jobs", "write search_alg: optuna or ax instead")
            known.pop("method")
            known.setdefault("search_alg", "optuna")
        form, problems = fit(_SweepForm, known, self.note)
        self.problems += problems
        parameters, problems = read_parameters(raw.get("parameters"), self.note)
        self.problems += problems
        search_alg, scheduler = self._algorithms(raw)
        if form is None:
            return None
        space = SearchSpace(tuple(parameter for parameter, _ in parameters.values()))
        method = self._method(form, search_alg)
        if method is None:
            return None
        self._check_method(method, parameters, raw, search_alg)
        objective = self._objective(form, bool(form.early_terminate or scheduler))
        num_points = self._num_points(form, method, space)
        if objective is None:
            return None
        if method == "bayes" and search_alg is None and raw.get("search_alg") is None:
            search_alg = self._default_bayes()
        search = Search(
            name=form.sweep_name or form.name or self.config.settings.experiment_name,
            method=method,
            metric=Metric(form.metric.name, form.metric.goal, form.metric.target),
            objective=objective,
            space=space,
            addresses={},
            num_points=num_points,
            seeds=tuple(range(form.seeds) if isinstance(form.seeds, int) else form.seeds or ()),
            seed=form.seed,
            early_terminate=form.early_terminate and form.early_terminate.model_dump(exclude_none=True),
            search_alg=search_alg if method == "bayes" else None,
            scheduler=scheduler,
            max_concurrent=form.max_concurrent,
            resources_per_trial=_bundles(form.resources_per_trial),
            time_budget_s=form.time_budget,
            trial_timeout_s=form.trial_timeout,
            points_to_evaluate=tuple(self._points(form, method, space)),
            rerun_failed=form.rerun_failed,
            raw=raw,
        )
        return search

    def _ignore(self, raw: Mapping[str, Any]) -> None:
        """Warns of what has no meaning here, by name."""
        for key, why in _NO_MEANING.items():
            if raw.get(key) is not None:
                self.add((key,), f"'{key}' has no effect here{': ' if why else ''}{why}", severity="warning")
        if "metrics" in raw:
            self.add(("metrics",), "several metrics at once are not in this version", "write one `metric`")
        metric = raw.get("metric")
        for key in ("impute", "impute_while_running"):
            if isinstance(metric, Mapping) and metric.get(key) is not None:
                text = f"'{key}' has no effect here: a trial without the metric counts as failed"
                self.add(("metric", key), text, severity="warning")
        stop = raw.get("early_terminate")
        if isinstance(stop, Mapping) and stop.get("strict") is False:
            text = "'strict: false' has no effect here: a trial is judged by its value at the rung"
            self.add(("early_terminate", "strict"), text, severity="warning")

    def _algorithms(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        for key, table in (("search_alg", SEARCH_ALGORITHMS), ("scheduler", SCHEDULERS)):
            algorithm, problems = (
                (None, []) if raw.get(key) is None else read_algorithm(table, key, raw[key], self.note)
            )
            found.append(algorithm)
            self.problems += problems
        if raw.get("scheduler") is not None and raw.get("early_terminate") is not None:
            self.add(("scheduler",), "stands beside early_terminate, which is a scheduler too", "keep one")
        return found[0], found[1]

    def _method(
        self, form: _SweepForm, search_alg: Mapping[str, Any] | None
    ) -> Literal["grid", "random", "bayes"] | None:
        name = None if search_alg is None else search_alg["type"]
        follows = name if name in (None, "grid", "random") else "bayes"
        if form.method is None and follows is None:
            if not any(problem.path.endswith(("method", "search_alg")) for problem in self.problems):
                self.add(("method",), "is required", "add method: grid, random or bayes")
            return None
        if form.method is not None and follows is not None and form.method != follows:
            fix = f"write method: {follows}, or remove search_alg"
            self.add(("search_alg",), f"'{name}' does not go with method: {form.method}", fix)
        return form.method or follows

    def _default_bayes(self) -> dict[str, Any] | None:
        message = "is Optuna's tree-structured Parzen estimator here; wandb's is a Gaussian process"
        fix = "search_alg: {type: optuna, sampler: gp} is one too"
        self.add(("method",), message, fix, severity="warning")
        algorithm, problems = read_algorithm(SEARCH_ALGORITHMS, "search_alg", "optuna", self.note)
        self.problems += problems
        return algorithm

    def _check_method(
        self,
        method: str,
        parameters: Mapping[str, tuple[Parameter, KeyPath]],
        raw: Mapping[str, Any],
        search_alg: Mapping[str, Any] | None,
    ) -> None:
        if method == "grid":
            self.problems += grid_problems(parameters, self.note)
        if method == "bayes":
            self.problems += bayes_problems(parameters, self.note)

    def _objective(self, form: _SweepForm, stops_early: bool) -> Objective | None:
        try:
            objective = find_objective(form.metric.name, self.plan)
        except UserError as error:
            self.add(("metric", "name"), str(error))
            return None
        return objective

    def _num_points(self, form: _SweepForm, method: str, space: SearchSpace) -> int | None:
        caps = [cap for cap in (form.run_cap, form.sweep_max_count) if cap is not None]
        if method == "grid":
            if any(parameter.size is None for parameter in space.parameters):
                return None
            caps.append(space.grid_size())
        if not caps and form.time_budget is None and form.metric.target is None:
            message = f"method {method} would never end"
            self.add((), message, "add run_cap: 20, or time_budget: 2h, or metric.target")
        return min(caps) if caps else None

    def _points(self, form: _SweepForm, method: str, space: SearchSpace) -> Iterator[Mapping[str, Any]]:
        return iter(form.points_to_evaluate)


def _bundles(given: Any) -> tuple[Mapping[str, float], ...] | None:
    """`resources_per_trial` by Ray's resource names."""
    if not given:
        return None
    bundles = given if isinstance(given, list) else [given]
    return tuple({_RESOURCES.get(name, name): amount for name, amount in bundle.items()} for bundle in bundles)
