"""Whoever asks for workers says what it asks, waits no longer than it may, and names what the cluster lacks."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime import placement, session
from raysandbox.runtime.placement import Resources, most_workers, placement_group_for, wait_for_room
from raysandbox.runtime.session import Cluster, Node
from raysandbox.runtime.workers import run_in_worker
from tests.chaos.raylets import raylets
from tests.runtime.elastic import Seen, Work, groups_held
from tests.runtime.test_workers import Context, Job, context  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]


class Trainer(ModelTrainer):
    """Never begins."""

    distributed = True

    def train(self, session):
        raise AssertionError


@pytest.fixture
def may_grow(cluster, monkeypatch):
    """The local Ray counts as a cluster that may grow: what it lacks is waited for."""
    monkeypatch.setattr(session, "_started", "cluster")


@pytest.fixture(params=["elastic", "fixed", "training", "training of two"])
def ask(request, context, tmp_path, may_grow):  # noqa: F811
    """Asks for workers of one kind, by resources; each waits a second at most."""

    def ask(**resources):
        if request.param.startswith("training"):
            workers = {"num_workers": 2} if request.param.endswith("two") else {}
            run_in_worker(Trainer(), Job(Resources(timeout_s=1, **workers, **resources)), context)
        else:
            seen = Seen(tmp_path, timeout_s=1, **resources)
            list(seen.workers.map(Work(tmp_path), [1, 2], elastic=request.param == "elastic"))

    return ask


@pytest.mark.parametrize(
    ("resources", "lacks"),
    [
        ({"num_gpus": 1, "accelerator_type": "H100"}, "no node has a GPU of type H100"),
        ({"num_gpus": 0, "label_selector": {"market": "spot"}}, "no node has the labels {'market': 'spot'}"),
        ({"num_gpus": 3}, "a worker needs 3 GPU on one node, the largest node has 2"),
    ],
)
def test_what_a_cluster_lacks_is_named_by_whoever_asks(ask, resources, lacks):
    began = time.monotonic()
    with pytest.raises(JobFailed) as caught:
        ask(**resources)
    assert time.monotonic() - began < 60  # the timeout, on a busy machine
    message = str(caught.value)
    assert lacks in message
    assert "waited 1 s" in message
    assert "the cluster has 3 CPU, 2 GPU on 1 node" in message
    assert groups_held() == []


@pytest.mark.parametrize(
    ("resources", "lacks"),
    [
        ({"strategy": "STRICT_SPREAD"}, "STRICT_SPREAD needs 2 nodes that hold a worker each, there are 1"),
        ({"num_cpus": 2, "strategy": "STRICT_PACK"}, "STRICT_PACK needs 2 workers on one node, the best node holds 1"),
        ({"num_workers": 3, "num_gpus": 0.6}, "3 workers are asked for, the cluster holds 2"),
    ],
)
def test_how_workers_lie_together(context, may_grow, resources, lacks):  # noqa: F811
    with pytest.raises(JobFailed, match=lacks):
        run_in_worker(Trainer(), Job(Resources(**{"timeout_s": 1, "num_workers": 2, **resources})), context)


def test_shares_of_a_gpu_are_of_one(cluster):
    node = Cluster((Node("a", {"GPU": 2.0, "CPU": 8.0}),), {})
    found = [most_workers(Resources(num_gpus=share, num_cpus=0.1), node) for share in (1, 0.6, 0.5, 0.4, 0.25)]
    assert found == [2, 2, 4, 4, 8]
    with placement_group_for(Resources(num_gpus=0.5, num_cpus=0.1, num_workers=4), timeout_s=60):
        pass


def test_a_recipe_waits_for_room_and_says_who_has_it(may_grow, monkeypatch):
    monkeypatch.setattr(placement, "_ROOM_S", 1.0)
    with (
        placement_group_for(Resources(num_gpus=2)),
        pytest.raises(JobFailed, match=r"1 × \(1 CPU, 1 GPU\).*other work holds.*a job: 2 GPU, 1 CPU.*waited 1 s"),
    ):
        wait_for_room("of a recipe", num_cpus=1, num_gpus=1)
    assert groups_held() == []


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_each_worker_lies_where_it_asks_to(tmp_path):
    nodes = {3: ['--resources={"accelerator_type:A100": 1}'], 4: ["--labels=market=spot"]}
    with raylets(tmp_path, 2, 3, 4, gpus=1, more=nodes) as cluster:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("placed_driver.py"), tmp_path],
            env={**cluster.environment, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    head, with_a100, spot = (f"127.0.0.{number}" for number in (2, 3, 4))
    for kind in ("elastic", "fixed", "training"):
        assert found[f"{kind}: accelerator"] == [with_a100], found
        assert found[f"{kind}: label"] == [spot], found
        assert spot not in found[f"{kind}: other label"], found
    assert found["fixed: SPREAD"] == [head, with_a100, spot], found
    assert len(found["fixed: PACK"]) == 1, found
    assert len(found["fixed: halves"]) == 1, found
