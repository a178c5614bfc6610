from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from raysandbox.config.load import load_config
from raysandbox.hpo.bundles import Share, share_of
from raysandbox.hpo.planning import plan_search
from raysandbox.runtime.session import Cluster, Node
from tests.hpo.tiny_searches import training, write

METRIC = {"name": "train.loss"}
PARAMETERS = {"anonymous.train.extra_configs.floor": {"values": [0.0, 1.0, 2.0, 3.0]}}


def share(config: Path, cpus: float, gpus: float = 0.0) -> Share:
    plan, search = plan_search(load_config(config))
    assert search is not None, plan.problems
    return share_of(search, plan, Cluster((Node("x", {"CPU": cpus, "GPU": gpus}),), {}))


def search(**more: Any) -> dict[str, Any]:
    return {"method": "grid", "metric": METRIC, "parameters": PARAMETERS, **more}


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize(("cpus", "concurrent"), [(2, 1), (3, 2), (9, 8)])
def test_one_cpu_stays_outside_of_all_trials(workspace: Path, cpus: int, concurrent: int) -> None:
    assert share(training(workspace, search()), cpus) == Share(({"CPU": 1.0},), "PACK", concurrent)


@pytest.mark.usefixtures("texts")
def test_a_trial_that_leaves_no_cpu_holds_nothing(workspace: Path) -> None:
    found = share(training(workspace, search(max_concurrent=4)), 1)
    assert (found.bundles, found.concurrent) == ((), 1)
    assert "leave no CPU of 1 to Ray Data" in found.note


@pytest.mark.usefixtures("texts")
def test_a_trial_holds_the_most_that_any_job_needs(workspace: Path) -> None:
    def job(name: str, **resources: Any) -> dict[str, Any]:
        extra = {"type": "fake", "train_dataset": "texts.jsonl", "work_dir": f"./outputs/search/{name}"}
        return {"hook": "TrainModelHook", "meta_name": name, "extra_configs": extra, "resources": resources}

    jobs = [
        job("train", num_gpus=1, num_cpus=2),
        job("more", num_workers=2, num_cpus=3, num_gpus=0, strategy="SPREAD"),
    ]
    path = write(workspace, search(), jobs)
    found = share(path, 32, 8)
    assert found == Share(({"CPU": 3.0, "GPU": 1.0}, {"CPU": 3.0}), "SPREAD", 5)
    assert share(path, 64, 3).concurrent == 3  # GPUs are what is short


@pytest.mark.usefixtures("texts")
def test_what_the_search_says_counts(workspace: Path) -> None:
    asked = search(resources_per_trial=[{"CPU": 1}, {"num_gpus": 1}], max_concurrent=2)
    assert share(training(workspace, asked), 16, 4) == Share(({"CPU": 1}, {"GPU": 1}), "PACK", 2)


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize(
    ("asked", "words"), [({"CPU": 3}, "(3 CPU), PACK, on 1 node with 2 CPU"), ({"TPU": 1}, "0 TPU")]
)
def test_more_than_there_is_is_refused(workspace: Path, asked: dict[str, float], words: str) -> None:
    found = share(training(workspace, search(resources_per_trial=[asked])), 2)
    assert "resources_per_trial asks for more than there is" in found.problem
    assert words in found.problem


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize(("strategy", "refused"), [("PACK", False), ("STRICT_SPREAD", False), ("STRICT_PACK", True)])
def test_bundles_are_placed_on_nodes(workspace: Path, strategy: str, refused: bool) -> None:
    resources = {"num_workers": 2, "num_cpus": 2, "strategy": strategy}
    asked = search(resources_per_trial=[{"CPU": 2}, {"CPU": 2}])
    plan, read = plan_search(load_config(training(workspace, asked, resources)))
    assert read is not None
    nodes = tuple(Node(name, {"CPU": 3.0}) for name in "ab")
    assert bool(share_of(read, plan, Cluster(nodes, {})).problem) == refused
    wide = dataclasses.replace(read, resources_per_trial=({"CPU": 4.0},))  # 6 CPUs, but on no node
    assert share_of(wide, plan, Cluster(nodes, {})).problem
