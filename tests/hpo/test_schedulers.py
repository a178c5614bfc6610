"""Which trials are ended early, and at which of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raysandbox.hpo.algorithms import SCHEDULERS
from raysandbox.hpo.schedulers import METRIC, hyperband_rungs, make_scheduler
from raysandbox.hpo.schema import Search
from raysandbox.hpo.searchers import make_searcher, tune_searcher
from raysandbox.hpo.space import Parameter
from tests.hpo.searches import EVERY_KIND, search_over

X = Parameter("op.x", "uniform", low=0.0, high=1.0)
STOP = "STOP"


class Trial:
    """As much of a trial of Tune's as its schedulers look at."""

    def __init__(self, name: int, config: Mapping[str, Any] | None = None) -> None:
        self.trial_id = str(name)
        self.config = dict(config or {})
        self.evaluated_params: dict[str, Any] = {}
        self.status = "RUNNING"
        self.experiment_tag = ""


CONTROLLER: Any = SimpleNamespace(get_live_trials=list, search_alg=None)


def with_scheduler(kind: str, **options: Any) -> Search:
    """A search with a scheduler and the table's defaults."""
    filled = SCHEDULERS[kind].options(**options).model_dump(exclude_none=True)
    return search_over(X, scheduler={"type": SCHEDULERS[kind].name, **filled}, goal="maximize")


def stops(search: Search, length: int, trials: int = 9) -> dict[int, int]:
    """Runs trials of which a later one is always worse than all before; trial → iteration at which it is ended."""
    scheduler: Any = make_scheduler(search)
    ended: dict[int, int] = {}
    for number in range(trials):
        trial = Trial(number)
        scheduler.on_trial_add(CONTROLLER, trial)
        for iteration in range(1, length + 1):
            result = {"training_iteration": iteration, METRIC: -float(number)}
            if scheduler.on_trial_result(CONTROLLER, trial, result) == STOP:
                ended[number] = iteration
                break
    return ended


def rungs(early_terminate: Mapping[str, Any], length: int) -> list[int]:
    """At which iterations a trial is judged: where it is ended that is as good as the best, and then worse."""
    search = search_over(X, early_terminate={"type": "hyperband", **early_terminate}, goal="maximize")
    judged: list[int] = []
    for turn in range(1, length + 1):
        scheduler: Any = make_scheduler(search)
        for name, until in (("best", length), ("falls", turn)):
            trial = Trial(0)
            trial.trial_id = name
            scheduler.on_trial_add(CONTROLLER, trial)
            for iteration in range(1, until + 1):
                value = 0.0 if name == "falls" and iteration == turn else 1.0
                result = {"training_iteration": iteration, METRIC: value}
                if scheduler.on_trial_result(CONTROLLER, trial, result) == STOP:
                    judged.append(iteration)
    return judged


@pytest.mark.parametrize(
    ("early_terminate", "expected"),
    [
        ({"max_iter": 27, "s": 2, "eta": 3}, [3, 9]),
        ({"max_iter": 27, "s": 2}, [3, 9]),
        ({"max_iter": 27, "s": 9, "eta": 3}, [1, 3, 9]),
        ({"max_iter": 32, "s": 5, "eta": 2}, [1, 2, 4, 8, 16]),
        ({"max_iter": 10, "s": 2, "eta": 3}, [2, 4]),
        ({"min_iter": 3}, [3, 9, 27]),
        ({"min_iter": 5, "eta": 2}, [5, 10, 20, 40]),
        ({"min_iter": 10, "eta": 1.5}, [10, 15, 23, 34]),
    ],
)
def test_a_sweeps_hyperband_judges_at_its_rungs(early_terminate: dict[str, Any], expected: list[int]) -> None:
    assert rungs(early_terminate, 40) == expected


def test_rungs_below_one_are_left_out_and_none_is_an_error() -> None:
    assert hyperband_rungs({"max_iter": 27, "s": 5, "eta": 3}) == (1.0, 9.0, 3.0)
    with pytest.raises(ValueError, match="max_iter 2 divided by eta 3 is below 1"):
        hyperband_rungs({"max_iter": 2, "s": 2, "eta": 3})


def test_what_is_good_is_not_ended_and_the_goal_is_minded() -> None:
    early = {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3}
    worse = search_over(X, early_terminate=early, goal="maximize")
    better = search_over(X, early_terminate=early, goal="minimize")
    assert stops(worse, 30) == dict.fromkeys(range(1, 9), 3)
    assert stops(better, 30) == {}


def test_without_anything_no_trial_is_ended() -> None:
    assert stops(search_over(X), 30) == {}


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (with_scheduler("fifo"), {}),
        (with_scheduler("asha", max_t=8, grace_period=2, reduction_factor=2), {0: 8} | dict.fromkeys(range(1, 9), 2)),
        (with_scheduler("median_stopping", grace_period=4), dict.fromkeys(range(3, 9), 4)),
    ],
)
def test_schedulers_by_name(search: Search, expected: dict[int, int]) -> None:
    assert stops(search, 20) == expected


@pytest.mark.parametrize("kind", sorted(SCHEDULERS))
def test_every_scheduler_of_the_table_is_made_with_the_tables_defaults(kind: str) -> None:
    scheduler: Any = make_scheduler(with_scheduler(kind))
    if SCHEDULERS[kind].name != "fifo":
        assert (scheduler.metric, scheduler._mode, scheduler._time_attr) == (METRIC, "max", "training_iteration")


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_population_based_training_takes_points_from_our_searcher(kind: str) -> None:
    """Tune's own refuses to stand beside a searcher."""
    from ray.tune.search import SearchGenerator

    search = with_scheduler(kind)
    searcher = tune_searcher(make_searcher(search, []), lambda _: None)
    scheduler: Any = make_scheduler(search)
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    trial: Any = Trial(0, config)
    metadata = SimpleNamespace(checkpoint_manager=SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None)))
    trial.run_metadata = metadata
    scheduler.on_trial_add(SimpleNamespace(search_alg=SearchGenerator(searcher)), trial)
    assert trial.config["params"] == config["params"]


def test_population_based_training_keeps_parameters_in_their_ranges() -> None:
    from ray.tune.schedulers import pbt

    explore: Any = pbt._explore

    search = search_over(*EVERY_KIND, scheduler={"type": "pbt"})
    scheduler: Any = make_scheduler(search)
    config = {"number": 3, "params": search.space.random_point(42, 0)}
    for _ in range(200):
        config, _ = explore(config, scheduler._hyperparam_mutations, 0.25, (1.2, 0.8), scheduler._custom_explore_fn)
        assert config["number"] == 3
        for parameter in EVERY_KIND:
            assert parameter.contains(config["params"][parameter.name]), parameter.name
    assert config["params"]["op.uniform"] != search.space.random_point(42, 0)["op.uniform"]


@pytest.mark.usefixtures("cluster")
def test_tune_runs_each_trial_of_our_searcher_and_ends_bad_ones_at_the_rungs(tmp_path: Path) -> None:
    from ray import tune

    def train(config: dict[str, Any]) -> None:
        for _ in range(12):
            tune.report({METRIC: config["params"]["op.x"]})

    early = {"type": "hyperband", "max_iter": 12, "s": 2, "eta": 2}
    search = search_over(X, early_terminate=early, method="random", num_points=4)
    noted: list[int] = []
    searcher = make_searcher(search, [])
    tuner = tune.Tuner(
        tune.with_resources(train, {"CPU": 0.5}),
        tune_config=tune.TuneConfig(
            search_alg=tune_searcher(searcher, lambda s: noted.append(s.number)),
            scheduler=make_scheduler(search),
            num_samples=-1,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="tune", verbose=0),
    )
    grid: Any = tuner.fit()
    assert noted == list(range(4))
    assert searcher.finished
    lengths: dict[int, int] = {}
    best = math.inf
    for result in sorted(grid, key=lambda result: result.config["number"]):
        lengths[result.config["number"]] = result.metrics["training_iteration"]
    for number in range(4):
        value = search.space.random_point(42, number)["op.x"]
        if value < best:
            assert lengths[number] == 12
            best = value
        else:
            assert lengths[number] in (3, 6, 12)
    assert lengths[0] == 12
    assert 3 in lengths.values()
