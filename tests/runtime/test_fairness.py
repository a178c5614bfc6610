"""Several experiments on one cluster share what comes and goes."""

import contextlib
import json
import math
import subprocess
import sys
import time

import pytest

from raysandbox.runtime.claims import Owner, claims, held_text
from raysandbox.runtime.fairness import Claimant, divided, fair_share
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.session import Cluster, Node
from tests.chaos.raylets import raylets
from tests.runtime.elastic import Driver, runs_in

ALL = math.inf


@pytest.mark.parametrize(
    ("total", "claimants", "shares"),
    [
        (4, {"a": Claimant(ALL)}, {"a": 4}),
        (4, {"a": Claimant(ALL, 4), "b": Claimant(ALL)}, {"a": 2, "b": 2}),
        (4, {"a": Claimant(ALL), "b": Claimant(1, 1)}, {"a": 3, "b": 1}),
        (4, {"a": Claimant(ALL), "b": Claimant(ALL), "c": Claimant(ALL)}, {"a": 2, "b": 1, "c": 1}),
        (4, {"a": Claimant(ALL, 1), "b": Claimant(ALL, 1), "c": Claimant(ALL, 2)}, {"a": 1, "b": 1, "c": 2}),
        (2, {"a": Claimant(ALL), "b": Claimant(ALL, 1), "c": Claimant(ALL, 1)}, {"a": 0, "b": 1, "c": 1}),
        (1, {"a": Claimant(ALL, 1, 0.25), "b": Claimant(ALL, 0, 0.25)}, {"a": 0.5, "b": 0.5}),
        (10, {"a": Claimant(2), "b": Claimant(3), "c": Claimant(ALL)}, {"a": 2, "b": 3, "c": 5}),
        (0, {"a": Claimant(ALL)}, {"a": 0}),
    ],
)
def test_shares(total, claimants, shares):
    assert divided(total, claimants) == shares


NODES = Cluster(
    (
        Node("one", {"GPU": 4.0, "CPU": 8.0}, {"ray.io/node-id": "1", "spot": "no"}),
        Node("two", {"GPU": 4.0, "CPU": 8.0}, {"ray.io/node-id": "2", "spot": "yes"}),
    ),
    {},
)


def group(run, node=None, *, crew="x", gpus=1.0, elastic=True, labels=None, job="p.infer#0"):
    """A placement group as Ray lists it; without a node it waits."""
    said = {"run": run, "job": job, "elastic": elastic, "crew": crew, "labels": labels or {}, "id": "1"}
    return {
        "name": "raysandbox:" + json.dumps(said) if run else "",
        "state": "CREATED" if node else "PENDING",
        "bundles": {0: {"GPU": gpus, "CPU": 1.0}},
        "bundles_to_node_id": {0: node or ""},
    }


def share(table, labels=None, gpus=1.0):
    """What the workers "own" of the run "a" may have."""
    resources = Resources.model_validate({"num_gpus": gpus, "label_selector": labels or {}})
    return fair_share(Owner("p.infer#0", True, "own"), resources, NODES, table)


@pytest.fixture(autouse=True)
def _without_ray(request, monkeypatch):
    if "tmp_path" not in request.fixturenames:
        monkeypatch.setattr("raysandbox.runtime.fairness.own_experiment", lambda: "a")
        monkeypatch.setattr("raysandbox.runtime.draining._told", dict)


def test_whoever_is_alone_has_no_share():
    assert share([]) is None
    assert share([group("a", "1", crew="own")] * 3) is None
    assert share([group("", "1", gpus=2.0)]) is None  # of others; it is just not there
    assert share([group("b", "1", elastic=False, gpus=2.0)]) is None  # a training that runs


def test_experiments_have_equal_shares_and_so_have_jobs_of_one():
    assert share([group("b")]) == 4
    assert share([group("b"), group("c")]) == 3
    assert share([group("b", crew="x"), group("b", crew="y")]) == 4
    assert share([group("a", crew="other"), group("b")]) == 2
    assert share([group("b"), group("", "1", gpus=2.0)]) == 3
    assert share([group("b", "1"), group("b", "2", crew="x")]) == 6  # it wants no more
    assert share([group("b")], gpus=0.5) == 8


def test_a_training_that_waits_gets_what_it_can_use():
    assert share([group("b", elastic=False, gpus=2.0)]) == 6
    assert share([group("b", elastic=False, gpus=4.0)]) == 4
    assert share([group("b", elastic=False, gpus=6.0)]) is None or share([group("b", elastic=False, gpus=6.0)]) == 8


def test_who_cannot_meet_does_not_share():
    assert share([group("b", labels={"spot": "yes"})], {"spot": "no"}) is None
    assert share([group("b", "2")], {"spot": "no"}) is None
    assert share([group("b", labels={"spot": "yes"})], {"spot": "yes"}) == 2
    assert share([group("b", labels={"gpu": "none"})]) is None


def test_who_holds_what(monkeypatch):
    table = [group("b", "1"), group("b", "2"), group("b"), group("", "1", gpus=3.0)]
    monkeypatch.setattr("raysandbox.runtime.claims.own_experiment", lambda: "a")
    assert held_text(table) == "others: 3 GPU, 1 CPU; p.infer#0 of another run (Ray job b): 2 GPU, 2 CPU"
    assert [claim.owner.job for claim in claims(table)] == ["p.infer#0"] * 3


def working(driver):
    """How many workers of a driver stand now."""
    return len(driver.of("worker_started")) - len(driver.of("worker_ended")) - len(driver.of("worker_lost"))


def settles(condition, seconds=180.0):
    """Seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, condition.__code__.co_names
        time.sleep(0.1)
    return time.monotonic() - began


LIST = """
import json, ray
ray.init(log_to_driver=False, logging_level="ERROR")
from ray.util.state import list_actors
groups = [group["state"] for group in ray.util.placement_group_table().values()]
actors = [actor.class_name for actor in list_actors(limit=1000) if actor.state != "DEAD"]
print(json.dumps([[state for state in groups if state != "REMOVED"], actors]))
"""


@pytest.mark.timeout(600)
def test_two_experiments_share_and_a_killed_one_gives_back(tmp_path):
    with raylets(tmp_path, 2, cpus=4, gpus=4) as cluster, contextlib.ExitStack() as drivers:
        folders = [tmp_path / name for name in "abc"]
        for folder in folders:
            folder.mkdir()
        first = drivers.enter_context(Driver(cluster, folders[0], 4000, 0.3))
        settles(lambda: working(first) == 4)
        second = drivers.enter_context(Driver(cluster, folders[1], 4000, 0.3))
        print("shared after", settles(lambda: working(first) == working(second) == 2), "s")
        settles(lambda: len(second.of("unit")) >= 4)
        assert working(first) == working(second) == 2
        second.kill()
        print("back after", settles(lambda: working(first) == 4, 30), "s")
        (folders[0] / "hurry").touch()
        first.end()
        assert sorted(unit["index"] for unit in first.of("unit")) == list(range(4000))
        assert len({unit["index"] for unit in first.of("unit")}) == 4000
        assert [told["workers"] for told in first.of("fair_share")] == [2, None]
        assert first.of("worker_lost") == []
        assert runs_in(folders[0]) == 4000  # no unit was cancelled for the other's sake
        settles(lambda: not cluster.workers("UnitActor"))
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        environment["RAY_API_SERVER_ADDRESS"] = cluster.dashboard
        listed = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LIST],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert json.loads(listed.stdout.splitlines()[-1]) == [[], []]
