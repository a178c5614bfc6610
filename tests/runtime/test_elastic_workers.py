"""Workers that come and go with the cluster; units that fail are tried elsewhere."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.core.runner import UnitFailed
from raysandbox.runtime import pace
from raysandbox.runtime.placement import Resources, placement_group_for
from tests.chaos.raylets import raylets
from tests.runtime.elastic import Driver, Seen, Work, groups_held, is_first, runs_in


def test_one_worker_for_each_gpu(cluster, tmp_path):
    seen = Seen(tmp_path)
    done = dict(seen.workers.map(Work(tmp_path), ["meet"] * 2 + [0.3] * 6, elastic=True))
    assert sorted(done) == list(range(8))
    assert len(set(done.values())) == 2
    started, ended = seen.of("worker_started"), seen.of("worker_ended")
    assert sorted(event["worker"] for event in started) == sorted(event["worker"] for event in ended) == [0, 1]
    assert {event["node"] for event in started} == {"127.0.0.1"}
    assert 0.05 < seen.metrics[-1]["busy_share"] <= 1
    assert "gpu_utilization" not in seen.metrics[-1]
    assert groups_held() == []


@pytest.mark.parametrize(("resources", "argument", "workers"), [({"num_workers": 3, "num_gpus": 0}, 1, 3), ({}, 1, 1)])
def test_as_many_as_are_asked_for(cluster, tmp_path, resources, argument, workers):
    work, units = Work(tmp_path, meet=workers), ["meet"] * workers + [0.1] * 6
    done = Seen(tmp_path, **resources).workers.map(work, units, elastic=True, num_workers=argument)
    assert len({pid for _, pid in done}) == workers


def test_no_gpus_wanted_means_one_worker(cluster, tmp_path):
    assert len({pid for _, pid in Seen(tmp_path, num_gpus=0).workers.map(Work(tmp_path), [0.1] * 4, elastic=True)}) == 1


def test_the_first_worker_begins_and_others_join(cluster, tmp_path):
    seen = Seen(tmp_path)
    others_work = placement_group_for(Resources(num_gpus=1, num_cpus=0.5))
    others_work.__enter__()
    running = seen.workers.map(Work(tmp_path), [0.1] * 4 + ["meet"] * 2, elastic=True)
    first = [next(running)[1] for _ in range(4)]
    assert len(set(first)) == 1
    others_work.__exit__(None, None, None)
    assert len({pid for _, pid in running}) == 2
    assert groups_held() == []


def test_idle_workers_are_ended(cluster, tmp_path):
    seen = Seen(tmp_path)
    running = seen.workers.map(Work(tmp_path), ["meet", "meet", "wait", 0.1], elastic=True)
    for _ in range(3):
        next(running)
    assert len(seen.of("worker_ended")) == 1
    assert len(groups_held()) == 1
    (tmp_path / "go").touch()
    assert dict(running).keys() == {2}


def test_no_worker_at_all(cluster, tmp_path):
    waits = Seen(tmp_path, timeout_s=1).workers.map(Work(tmp_path), [1, 2], elastic=True)
    with (
        placement_group_for(Resources(num_gpus=2)),
        pytest.raises(JobFailed, match=r"1 × \(0.5 CPU, 1 GPU\).*other work holds.*waited 1 s"),
    ):
        next(waits)
    with pytest.raises(JobFailed, match="the largest node has 2"):
        list(Seen(tmp_path, num_gpus=3).workers.map(Work(tmp_path), [1], elastic=True))
    assert groups_held() == []


@pytest.mark.parametrize("elastic", [True, False])
def test_a_unit_that_fails_is_tried_by_another_worker(cluster, tmp_path, elastic):
    work = Work(tmp_path)
    units = ["fail here", 0.2, 0.2, 0.2]
    done = dict(Seen(tmp_path, num_workers=2).workers.map(work, units, elastic=elastic, tries=2))
    assert all(isinstance(pid, int) for pid in done.values())
    (failed,) = tmp_path.glob("fail here-*")
    assert failed.name != f"fail here-{done[0]}"


@pytest.mark.parametrize("elastic", [True, False])
def test_units_that_always_fail_are_named(cluster, tmp_path, elastic):
    seen = Seen(tmp_path, num_workers=2)
    done = dict(seen.workers.map(Work(tmp_path), ["fail", 0.1, "die", 0.1], elastic=elastic, tries=3))
    assert done[0] == UnitFailed("ValueError: no such luck")
    assert isinstance(done[1], int)
    assert done[2].reason.startswith("the worker died 3 times on unit 2: ")
    assert len(seen.of("worker_lost")) == 3
    assert {fields["unit"] for fields in seen.of("worker_lost")} == {2}
    assert groups_held() == []


def test_without_tries_a_failure_ends_the_work(cluster, tmp_path):
    with pytest.raises(JobFailed, match="ValueError: no such luck\nlast lines of"):
        list(Seen(tmp_path).workers.map(Work(tmp_path), ["fail", 0.1], elastic=True))
    assert groups_held() == []


def test_a_model_that_does_not_load_ends_the_work(cluster, tmp_path):
    work = Work(tmp_path, load_error="no such model")
    with pytest.raises(JobFailed, match="no such model"):
        list(Seen(tmp_path).workers.map(work, [1, 2], elastic=True, tries=5))


@dataclass(frozen=True)
class Picky:
    """Loads in the first process only, or in all but the first; units wait for one in which it does not."""

    folder: Path
    first: bool

    def load(self, device):
        if is_first(self.folder) != self.first:
            (self.folder / "refused").touch()
            raise OSError(107, "Transport endpoint is not connected")

    def run(self, unit, state):
        while not (self.folder / "refused").exists():
            time.sleep(0.01)
        time.sleep(0.5)  # the news travel
        return os.getpid()


@pytest.mark.parametrize("first", [True, False])
def test_a_worker_that_cannot_load_is_no_end_while_others_can(cluster, tmp_path, first):
    seen = Seen(tmp_path)
    done = dict(seen.workers.map(Picky(tmp_path, first), range(4), elastic=True, tries=3))
    assert sorted(done) == [0, 1, 2, 3]
    assert all(isinstance(pid, int) for pid in done.values())
    assert seen.of("worker_lost")[0]["unit"] is None
    assert "OSError: [Errno 107]" in seen.of("worker_lost")[0]["reason"]
    assert groups_held() == []


def test_without_tries_each_worker_has_to_load(cluster, tmp_path):
    with pytest.raises(JobFailed, match="Errno 107"):
        list(Seen(tmp_path).workers.map(Picky(tmp_path, True), range(4), elastic=True))


@dataclass(frozen=True)
class Spoilt:
    """A process in which one unit fails, and then all others: as after an error of CUDA."""

    folder: Path

    def load(self, device):
        return {"ok": True}

    def run(self, unit, state):
        if unit == "spoil" and is_first(self.folder):
            state["ok"] = False
        if not state["ok"]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return os.getpid()


@pytest.mark.parametrize("elastic", [True, False])
def test_a_process_that_is_spoilt_is_replaced(cluster, tmp_path, elastic):
    seen = Seen(tmp_path, num_workers=1, num_gpus=0)
    done = dict(seen.workers.map(Spoilt(tmp_path), [0, 1, "spoil", *range(20)], elastic=elastic, tries=3))
    assert len(done) == 23
    assert all(isinstance(pid, int) for pid in done.values())
    assert len(set(done.values())) == len(seen.of("worker_started")) == 2
    assert groups_held() == []


def test_what_fresh_processes_do_not_mend_costs_few_of_them(cluster, tmp_path):
    seen = Seen(tmp_path, num_workers=1, num_gpus=0)
    done = dict(seen.workers.map(Work(tmp_path), ["fail"] * 6, elastic=True, tries=3))
    assert done == dict.fromkeys(range(6), UnitFailed("ValueError: no such luck"))
    assert len(seen.of("worker_started")) == 3


@dataclass(frozen=True)
class BrokenGpu:
    """Nothing can be done on GPU 1; the other one waits until that has been tried."""

    folder: Path

    def load(self, device):
        return os.environ["CUDA_VISIBLE_DEVICES"]

    def run(self, unit, state):
        if state == "1":
            (self.folder / f"tried-{unit}-{os.getpid()}").touch()
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        while len(list(self.folder.glob("tried-*"))) < 3:
            time.sleep(0.01)
        time.sleep(0.3)
        return state


def test_units_are_not_used_up_by_one_broken_gpu(cluster, tmp_path):
    seen = Seen(tmp_path)
    done = dict(seen.workers.map(BrokenGpu(tmp_path), range(12), elastic=True, tries=2))
    assert done == dict.fromkeys(range(12), "0")
    tried = [path.name.split("-")[1] for path in tmp_path.glob("tried-*")]
    assert len(tried) == len(set(tried))  # a worker that takes the place of another does not try the same again


def test_a_worker_that_hangs_counts_as_lost(cluster, tmp_path):
    seen = Seen(tmp_path, num_workers=1, num_gpus=0)
    work = Work(tmp_path, hang_in_load=True)
    done = dict(seen.workers.map(work, ["hang once", 0.1], elastic=True, tries=3, stall_timeout_s=8))
    assert all(isinstance(pid, int) for pid in done.values())
    lost = [(event["unit"], event["reason"]) for event in seen.of("worker_lost")]
    assert lost == [
        (None, "loading took longer than stall_timeout_s, 8 s"),
        (0, "unit 0 took longer than stall_timeout_s, 8 s"),
    ]
    assert groups_held() == []


def test_what_takes_long_is_said_once(cluster, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pace, "_LEAST_S", 0.5)
    units = [0.01] * 5 + [3.0]
    dict(Seen(tmp_path, num_gpus=0).workers.map(Work(tmp_path), units, elastic=True))
    (said,) = [record.getMessage() for record in caplog.records if "so far" in record.getMessage()]
    assert re.match(r"job anonymous.evaluate#0: unit 5 on worker 0 has taken \d s so far, others took 0.01", said)


def test_a_node_that_dies_and_one_that_joins(tmp_path, monkeypatch):
    for name, milliseconds in (("INITIAL_DELAY", 0), ("PERIOD", 500), ("TIMEOUT", 500)):
        monkeypatch.setenv(f"RAY_health_check_{name.lower()}_ms", str(milliseconds))
    count = 500
    with raylets(tmp_path, 2, 3, gpus=1) as cluster, Driver(cluster, tmp_path, count, 0.3) as driver:
        for number in (2, 3):
            driver.wait_for("unit", node=f"127.0.0.{number}")
        cluster.kill(3)
        driver.wait_for("worker_lost", node="127.0.0.3")
        cluster.start(4)
        driver.wait_for("unit", node="127.0.0.4")
        (tmp_path / "hurry").touch()
        driver.end()
    units = driver.of("unit")
    assert sorted(unit["index"] for unit in units) == list(range(count))
    assert {unit["node"] for unit in units} == {f"127.0.0.{number}" for number in (2, 3, 4)}
    assert runs_in(tmp_path) - count <= 1  # nothing was done twice but what the lost worker had at hand
    assert len(driver.of("worker_lost")) == 1
    assert set(driver.of("end")[0]["groups"]) == {"REMOVED"}


def test_last_words_of_a_worker_on_another_node(tmp_path):
    with raylets(tmp_path, 2, 3, gpus=1) as cluster, Driver(cluster, tmp_path, 300, 0.3) as driver:
        driver.wait_for("unit", node="127.0.0.3")
        (tmp_path / "crash-127.0.0.3").touch()
        driver.wait_for("worker_lost", node="127.0.0.3")
        (tmp_path / "hurry").touch()
        driver.end()
    assert any("WHY: a bad day" in log.read_text() for log in tmp_path.glob("job*.log"))
