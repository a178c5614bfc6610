"""Nodes that are about to go: their units are finished or move, trainings go on elsewhere."""

import math
import time

import psutil
import pytest

from raysandbox.runtime import crew, draining, places
from raysandbox.runtime.draining import draining_nodes, is_going, staying
from raysandbox.runtime.session import Cluster, Node
from tests.chaos.raylets import raylets
from tests.runtime.elastic import Driver, Seen, Work, groups_held, runs_in


def test_what_ray_says_of_deadlines(monkeypatch):
    monkeypatch.setattr(draining, "_looked", -math.inf)
    monkeypatch.setattr(draining, "_told", lambda: {"a": time.time() + 10, "b": math.inf, "c": time.time() - 5})
    left = draining_nodes()
    assert 9 < left["a"] <= 10
    assert left["b"] == math.inf
    assert left["c"] == 0
    nodes = {name: {"Alive": name != "e"} for name in "acde"}
    assert [is_going(name, nodes) for name in ("a", "d", "e", "")] == [True, False, True, False]
    cluster = Cluster(tuple(Node(name, {"GPU": 1.0}, {"ray.io/node-id": name}) for name in "abd"), {})
    assert [node.name for node in staying(cluster).nodes] == ["d"]


@pytest.mark.parametrize("elastic", [True, False])
@pytest.mark.parametrize("seconds_left", [0.0, 60.0])
def test_a_unit_moves_only_where_its_node_goes_before_it_ends(cluster, tmp_path, monkeypatch, elastic, seconds_left):
    ray = pytest.importorskip("ray")
    seen = Seen(tmp_path, num_workers=1, num_gpus=0)
    node = ray.get_runtime_context().get_node_id()

    def going():  # from the first unit on, until the worker has noticed
        begun = list(tmp_path.glob("hang once-*" if not seconds_left else "loaded-*"))
        return {node: seconds_left} if begun and not seen.of("worker_draining") else {}

    monkeypatch.setattr(crew, "draining_nodes", going)
    monkeypatch.setattr(places, "draining_nodes", going)
    units = ["hang once", 0.1] if not seconds_left else [1.0, 1.0, 0.1]
    done = dict(seen.workers.map(Work(tmp_path), units, elastic=elastic))
    assert sorted(done) == list(range(len(units)))
    (notice,) = seen.of("worker_draining")
    assert notice["seconds_left"] == seconds_left
    assert seen.of("worker_lost") == []
    first, second = (event["pid"] for event in seen.of("worker_started"))
    if notice["unit"] is not None:
        assert done[notice["unit"]] == (first if seconds_left else second)
    assert done[len(units) - 1] == second
    assert groups_held() == []


def processes_of(node):
    """Names of the living processes of a node."""
    children = psutil.Process(node.pid).children(recursive=True)
    return {child.name() for child in children if child.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_drained_node_is_given_back_with_nothing_lost(tmp_path):
    count = 500
    with raylets(tmp_path, 2, 3, gpus=1) as cluster, Driver(cluster, tmp_path, count, 0.3) as driver:
        driver.wait_for("unit", node="127.0.0.3")
        cluster.drain(3, 60)
        driver.wait_for("worker_draining", node="127.0.0.3")
        driver.wait_for("worker_ended", node="127.0.0.3")
        end = time.monotonic() + 180
        before = [told for told in driver.of("unit") if told["node"] == "127.0.0.3"]
        while "raylet" in processes_of(cluster.nodes[3]):  # nothing holds it any more, so Ray ends it
            assert time.monotonic() < end
            time.sleep(0.1)
        cluster.start(4)
        driver.wait_for("unit", node="127.0.0.4")
        (tmp_path / "hurry").touch()
        driver.end()
    units = driver.of("unit")
    assert sorted(unit["index"] for unit in units) == list(range(count))
    assert sum(unit["node"] == "127.0.0.3" for unit in units) <= len(before) + 1
    assert runs_in(tmp_path) == count  # nothing was done twice
    assert driver.of("worker_lost") == []
    assert set(driver.of("end")[0]["groups"]) == {"REMOVED"}


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_leaves_a_drained_node(tmp_path, workers):
    with (
        raylets(tmp_path, 2, 3, gpus=workers) as cluster,  # the driver leaves no room for it on the head at first
        Driver(cluster, tmp_path, workers, script="drained_driver.py") as driver,
    ):
        driver.wait_for("begun")
        cluster.drain(3, 600)
        driver.end()
    (end,) = driver.of("end")
    assert [path.read_text() for path in tmp_path.glob("begun-*")] == ["127.0.0.3"] * workers
    assert end["where"] != "127.0.0.3"
    assert set(end["groups"]) == {"REMOVED"}
