"""The search algorithms and schedulers of Ray Tune 2.60 that a search may name: tables, without Ray.

Names and defaults are those of `ray.tune.search` and `ray.tune.schedulers`, apart from what counts time:
here that is the number of reported values of the metric, never seconds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from raysandbox.config.documents import KeyPath
from raysandbox.config.validation import model_problems
from raysandbox.core.errors import Problem, did_you_mean

__all__ = ["SCHEDULERS", "SEARCH_ALGORITHMS", "Algorithm", "missing_packages", "read_algorithm"]

Note = Callable[..., Problem]  # (path, message, fix, severity=…)


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NoOptions(_Options):
    """Of an algorithm without parameters."""


_SAMPLER_OPTIONS = {
    "tpe": {"n_startup_trials", "n_ei_candidates", "multivariate", "group", "constant_liar", "prior_weight"},
    "gp": {"n_startup_trials", "deterministic_objective"},
    "cmaes": {"n_startup_trials", "sigma0", "popsize", "use_separable_cma", "with_margin", "lr_adapt"},
    "qmc": {"qmc_type", "scramble"},
    "random": set[str](),
}


class OptunaOptions(_Options):
    """Optuna: a sampler and its parameters; None leaves a parameter to the sampler's own default."""

    sampler: Literal["tpe", "gp", "cmaes", "qmc", "random"] = Field(
        "tpe", description="tree-structured Parzen estimator, Gaussian process, CMA-ES, quasi Monte Carlo, random"
    )
    n_startup_trials: int | None = Field(None, ge=0, description="tpe, gp, cmaes: random points before it models")
    n_ei_candidates: int | None = Field(None, ge=1, description="tpe: candidates per point")
    multivariate: bool | None = Field(None, description="tpe: models parameters jointly")
    group: bool | None = Field(None, description="tpe: with multivariate, by groups of parameters")
    constant_liar: bool | None = Field(None, description="tpe: running points count as bad")
    prior_weight: float | None = Field(None, gt=0, description="tpe: weight of the prior")
    deterministic_objective: bool | None = Field(None, description="gp: the metric has no noise")
    sigma0: float | None = Field(None, gt=0, description="cmaes: initial step, in the unit cube")
    popsize: int | None = Field(None, ge=2, description="cmaes: points per generation")
    use_separable_cma: bool | None = Field(None, description="cmaes: diagonal covariances only")
    with_margin: bool | None = Field(None, description="cmaes: keeps whole numbers and steps apart")
    lr_adapt: bool | None = Field(None, description="cmaes: adapts the learning rate to noise")
    qmc_type: Literal["sobol", "halton"] | None = Field(None, description="qmc: the sequence")
    scramble: bool | None = Field(None, description="qmc: scrambled by the seed")

    @model_validator(mode="after")
    def _of_this_sampler(self) -> OptunaOptions:
        wrong = sorted(self.model_fields_set - {"sampler"} - _SAMPLER_OPTIONS[self.sampler])
        if wrong:
            known = ", ".join(sorted(_SAMPLER_OPTIONS[self.sampler])) or "none"
            raise ValueError(f"sampler {self.sampler} has no {', '.join(wrong)}; it has: {known}")
        return self


class HyperOptOptions(_Options):
    """HyperOpt's tree-structured Parzen estimator."""

    n_initial_points: int = Field(20, ge=1, description="random points before it models")
    gamma: float = Field(0.25, gt=0, lt=1, description="share of the points that count as good")


class BayesOptOptions(_Options):
    """bayesian-optimization: a Gaussian process."""

    utility_kwargs: dict[str, Any] | None = Field(None, description="acquisition: {kind: ucb, kappa: 2.5, xi: 0.0}")
    random_search_steps: int = Field(10, ge=1, description="random points before it models")
    patience: int = Field(5, ge=1, description="how often it may propose the same before it ends")
    skip_duplicate: bool = Field(True, description="pass over points that were run")
    repeat_float_precision: int = Field(5, ge=0, description="digits by which points are the same")


class BohbOptions(_Options):
    """BOHB's model of HpBandSter."""

    bohb_config: dict[str, Any] | None = Field(None, description="parameters of HpBandSter's BOHB")


class NevergradOptions(_Options):
    """Nevergrad."""

    optimizer: str = Field("NGOpt", description="name in nevergrad's registry of optimizers")
    optimizer_kwargs: dict[str, Any] | None = Field(None, description="its parameters, less budget and workers")


class ZOOptOptions(_Options):
    """ZOOpt."""

    algo: Literal["asracos", "sracos"] = Field("asracos", description="asynchronous or sequential RACOS")
    parallel_num: int = Field(1, ge=1, description="points at once, asracos only")


class AshaOptions(_Options):
    """Asynchronous successive halving; iterations are reported values of the metric."""

    max_t: int = Field(100, ge=1, description="iterations after which a trial is complete")
    grace_period: int = Field(1, ge=1, description="iterations that every trial gets: the first rung")
    reduction_factor: float = Field(4, gt=1, description="of that many trials at a rung the best goes on")
    brackets: int = Field(1, ge=1, description="brackets, each with a later first rung")
    stop_last_trials: bool = Field(True, description="stop trials at max_t")

    @model_validator(mode="after")
    def _in_order(self) -> AshaOptions:
        if self.max_t < self.grace_period:
            raise ValueError(f"max_t {self.max_t} is less than grace_period {self.grace_period}")
        return self


class HyperBandOptions(_Options):
    """HyperBand: successive halving in synchronous brackets."""

    max_t: int = Field(81, ge=1, description="iterations after which a trial is complete")
    reduction_factor: float = Field(3, gt=1, description="of that many trials the best goes on")
    stop_last_trials: bool = Field(True, description="stop trials at max_t")


class MedianStoppingOptions(_Options):
    """Stops a trial whose best value is worse than the median of the others' means so far."""

    grace_period: float = Field(1.0, ge=0, description="iterations that every trial gets")
    min_samples_required: int = Field(3, ge=1, description="trials that a median needs")
    min_time_slice: int = Field(0, ge=0, description="iterations that a trial runs before it may be paused")
    hard_stop: bool = Field(True, description="stop trials; false pauses them")


class Pb2Options(_Options):
    """Population Based Bandits; what changes are the parameters of the search."""

    perturbation_interval: float = Field(1.0, gt=0, description="iterations between changes")
    quantile_fraction: float = Field(0.25, ge=0, le=0.5, description="share of trials that are replaced")
    synch: bool = Field(False, description="changes wait until all trials have come as far")


class PbtOptions(Pb2Options):
    """Population Based Training; what changes are the parameters of the search."""

    burn_in_period: float = Field(0.0, ge=0, description="iterations before the first change")
    resample_probability: float = Field(0.25, ge=0, le=1, description="drawn anew instead of changed by a factor")
    perturbation_factors: tuple[float, float] = Field((1.2, 0.8), description="factors of a change")

    @field_validator("perturbation_factors")
    @classmethod
    def _positive(cls, value: tuple[float, float]) -> tuple[float, float]:
        if min(value) <= 0:
            raise ValueError("should be greater than 0")
        return value


@dataclass(frozen=True)
class Algorithm:
    """A search algorithm or a scheduler.

    Attributes:
        name: in the table.
        options: its parameters, with types and defaults.
        packages: module → what pip installs for it.
        variants: packages of single values of the option `sampler`, likewise.
        categories: whether it can choose among categories.
        unbounded: whether parameters may be without bounds.
        needs_number: whether it must know the number of points.
        partner: the scheduler or search algorithm that it only works with.
    """

    name: str
    options: type[BaseModel] = NoOptions
    packages: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    categories: bool = True
    unbounded: bool = True
    needs_number: bool = False
    partner: str | None = None


def _table(*algorithms: Algorithm, **aliases: str) -> Mapping[str, Algorithm]:
    named = {algorithm.name: algorithm for algorithm in algorithms}
    return named | {alias: named[name] for alias, name in aliases.items()}


_BOHB = {"hpbandster": "hpbandster", "ConfigSpace": "ConfigSpace"}

SEARCH_ALGORITHMS: Mapping[str, Algorithm] = _table(
    Algorithm("grid"),
    Algorithm("random"),
    Algorithm(
        "optuna",
        OptunaOptions,
        {"optuna": "raysandbox[hpo]"},
        variants={
            "gp": {"torch": "raysandbox[models]", "scipy": "raysandbox[hpo]"},
            "cmaes": {"cmaes": "cmaes"},
            "qmc": {"scipy": "raysandbox[hpo]"},
        },
    ),
    Algorithm("hyperopt", HyperOptOptions, {"hyperopt": "hyperopt"}),
    Algorithm("bayesopt", BayesOptOptions, {"bayes_opt": "bayesian-optimization==1.4.3"}, categories=False),
    Algorithm("bohb", BohbOptions, _BOHB, partner="hb_bohb"),
    Algorithm("hebo", NoOptions, {"hebo": "HEBO>=0.2.0"}),
    Algorithm("nevergrad", NevergradOptions, {"nevergrad": "nevergrad"}),
    Algorithm("ax", NoOptions, {"ax": "ax-platform"}),
    Algorithm("zoopt", ZOOptOptions, {"zoopt": "zoopt"}, needs_number=True),
)

SCHEDULERS: Mapping[str, Algorithm] = _table(
    Algorithm("fifo"),
    Algorithm("asha", AshaOptions),
    Algorithm("hyperband", HyperBandOptions),
    Algorithm("hb_bohb", HyperBandOptions, _BOHB, partner="bohb"),
    Algorithm("median_stopping", MedianStoppingOptions),
    Algorithm("pbt", PbtOptions),
    Algorithm("pb2", Pb2Options, {"sklearn": "scikit-learn"}, categories=False, unbounded=False),
    async_hyperband="asha",
    asynchyperband="asha",
    median_stopping_rule="median_stopping",
    medianstopping="median_stopping",
)

_REFUSED = {
    "pbt_replay": "replays the file of one earlier run of Tune's; run pbt itself",
    "resource_changing": "changes what a running trial holds; here a trial keeps its resources_per_trial",
}


def missing_packages(algorithm: Algorithm, options: Mapping[str, Any]) -> list[str]:
    """What pip must install before an algorithm can run; nothing is imported."""
    needed = {**algorithm.packages, **algorithm.variants.get(str(options.get("sampler")), {})}
    return list(dict.fromkeys(pip for module, pip in needed.items() if importlib.util.find_spec(module) is None))


def read_algorithm(
    table: Mapping[str, Algorithm], key: str, raw: Any, note: Note
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Reads `search_alg` or `scheduler`: a name, or `{type: name, **parameters}`.

    Args:
        table: `SEARCH_ALGORITHMS` or `SCHEDULERS`.
        key: of the sweep file.
        raw: its value.
        note: makes a problem at a path of the sweep file.

    Returns:
        `{"type": name, **parameters}` with aliases resolved and defaults filled in, less those that are None,
        or None when it cannot be read; every problem.
    """
    problems = list(_wrong_name(table, key, raw, note))
    if problems:
        return None, problems
    given: dict[str, Any] = {"type": raw} if isinstance(raw, str) else dict(raw)
    algorithm = table[str(given.pop("type")).lower()]
    base: KeyPath = (key,)
    problems = model_problems(algorithm.options, given, lambda path, *rest: note((*base, *path), *rest))
    if problems:
        return None, problems
    options = algorithm.options.model_validate(given).model_dump(exclude_none=True)
    missing = missing_packages(algorithm, options)
    if missing:
        install = " ".join(f"'{pip}'" for pip in missing)
        message = f"{algorithm.name} needs a package that is not installed"
        problems.append(note(base, message, f"pip install {install}"))
    return {"type": algorithm.name, **options}, problems


def _wrong_name(table: Mapping[str, Algorithm], key: str, raw: Any, note: Note) -> Iterator[Problem]:
    if isinstance(raw, Mapping) and "engine" in raw:
        yield note((key, "engine"), "is for wandb's own scheduler jobs", "write search_alg: optuna or ax instead")
        return
    name = raw.get("type") if isinstance(raw, Mapping) else raw
    if not isinstance(name, str):
        yield note((key,), "should be a name, or {type: name, parameter: value}")
    elif name.lower() in _REFUSED and key == "scheduler":
        yield note((key,), f"{name} {_REFUSED[name.lower()]}", "choose another scheduler")
    elif name.lower() not in table:
        known = sorted({algorithm.name for algorithm in table.values()})
        fix = did_you_mean(name.lower(), table) or f"known: {', '.join(known)}"
        yield note((key,), f"unknown {key} '{name}'", fix)
