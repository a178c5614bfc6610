"""The tables say what the installed Ray Tune and Optuna take."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from raysandbox.config.documents import Document
from raysandbox.config.validation import model_problems
from raysandbox.hpo.algorithms import SCHEDULERS, SEARCH_ALGORITHMS, OptunaOptions

# Tune counts seconds there by default; here a unit of time is a reported value.
OTHER_DEFAULTS = {
    ("median_stopping", "grace_period"),
    ("pbt", "perturbation_interval"),
    ("pb2", "perturbation_interval"),
}
OURS = {("optuna", "sampler"), ("nevergrad", "optimizer")}  # names of what Tune takes as an object


def tune_class(name: str) -> Any:
    from ray.tune import schedulers
    from ray.tune.schedulers.pb2 import PB2
    from ray.tune.search import SEARCH_ALG_IMPORT

    classes: dict[str, Any] = {
        "fifo": schedulers.FIFOScheduler,
        "asha": schedulers.ASHAScheduler,
        "hyperband": schedulers.HyperBandScheduler,
        "hb_bohb": schedulers.HyperBandForBOHB,
        "median_stopping": schedulers.MedianStoppingRule,
        "pbt": schedulers.PopulationBasedTraining,
        "pb2": PB2,
    }
    return classes.get(name) or SEARCH_ALG_IMPORT[name]()


def parameters_of(cls: Any) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            found |= dict(inspect.signature(base.__init__).parameters)
    return found


NAMES = sorted({a.name for a in SCHEDULERS.values()} | set(SEARCH_ALGORITHMS) - {"grid", "optuna"})


@pytest.mark.filterwarnings("ignore")  # Ray's own, while it is imported
@pytest.mark.parametrize("name", NAMES)
def test_options_are_those_of_tune_with_their_defaults(name: str) -> None:
    algorithm = {**SEARCH_ALGORITHMS, **SCHEDULERS}[name]
    taken = parameters_of(tune_class(name))
    for option, field in algorithm.options.model_fields.items():
        if (name, option) in OURS:
            continue
        assert option in taken, f"{name} of Tune has no {option}"
        if (name, option) not in OTHER_DEFAULTS:
            assert field.default == taken[option].default, option


@pytest.mark.parametrize(
    ("sampler", "cls"),
    [("tpe", "TPESampler"), ("gp", "GPSampler"), ("cmaes", "CmaEsSampler"), ("qmc", "QMCSampler")],
)
def test_options_of_optuna_are_those_of_its_samplers(sampler: str, cls: str) -> None:
    import optuna

    taken = inspect.signature(getattr(optuna.samplers, cls).__init__).parameters
    accepted = {option for option in set(OptunaOptions.model_fields) - {"sampler"} if takes(sampler, option)}
    assert accepted
    assert accepted <= set(taken)


def takes(sampler: str, option: str) -> bool:
    """Whether our form takes an option of Optuna's for a sampler."""
    value = {"qmc_type": "halton", "prior_weight": 1.0, "sigma0": 0.5}.get(option, 3)
    value = True if "bool" in str(OptunaOptions.model_fields[option].annotation) else value
    found = model_problems(OptunaOptions, {"sampler": sampler, option: value}, Document(None, "sweep.yaml").problem)
    assert all(f"sampler {sampler} has no {option}" in str(problem) for problem in found)
    return not found


def test_every_scheduler_of_tune_is_in_the_table_or_refused() -> None:
    from ray.tune.schedulers import SCHEDULER_IMPORT

    assert set(SCHEDULER_IMPORT) - set(SCHEDULERS) == {"pbt_replay", "resource_changing"}


def test_every_search_algorithm_of_tune_is_in_the_table() -> None:
    from ray.tune.search import SEARCH_ALG_IMPORT

    assert set(SEARCH_ALG_IMPORT) - set(SEARCH_ALGORITHMS) == {"variant_generator"}
