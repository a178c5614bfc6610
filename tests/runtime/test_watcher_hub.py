from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysandbox.core.events import read_events
from raysandbox.runtime.watcher_hub import Reading, Watched, WatcherHub
from raysandbox.watcher.config import WatchConfig
from raysandbox.watcher.metrics import Metric


def watched(folder: Path, run: str = "run", pid: int = 0) -> Watched:
    return Watched(WatchConfig(run, "project", "trial", folder), {"method": "grid"}, "train.loss", pid)


def metric(value: float, step: int | None = None, name: str = "train.loss") -> Metric:
    return Metric(name, value, step, 0.0)


@pytest.fixture
def hub() -> Iterator[WatcherHub]:
    made = WatcherHub({})
    yield made
    made.close(5.0)


def test_a_metrics_values_are_told_once_and_in_order(hub: WatcherHub, tmp_path: Path) -> None:
    hub.open(watched(tmp_path))
    assert hub.append("run", "client", 0, [metric(3.0, 1), metric(0.1, 1, "train.other"), metric(2.0, 2)])
    assert hub.append("run", "client", 1, [metric(0.1, 1, "train.other"), metric(2.0, 2), metric(1.0, 3)])  # sent again
    assert hub.readings("run", 0, 0.0) == [Reading(3.0, 1), Reading(2.0, 2), Reading(1.0, 3)]
    assert hub.readings("run", 2, 0.0) == [Reading(1.0, 3)]
    assert hub.query("run", "train.other") == 0.1
    hub.finish("run")
    assert hub.readings("run", 2, 0.0) == [Reading(1.0, 3)]
    assert hub.append("run", "client", 9, [metric(9.0)])  # too late: passed over, not sent again for ever
    assert [line["value"] for line in read_events(tmp_path / "metrics.jsonl")] == [3.0, 0.1, 2.0, 1.0]
    assert hub.close(5.0) == []


def test_who_waits_for_a_value_gets_it_at_once_and_learns_of_the_end(hub: WatcherHub, tmp_path: Path) -> None:
    hub.open(watched(tmp_path))
    threading.Timer(0.2, hub.append, ("run", "client", 0, [metric(1.0)])).start()
    began = time.monotonic()
    assert hub.readings("run", 0, 20.0) == [Reading(1.0, None)]
    threading.Timer(0.2, hub.finish, ("run",)).start()
    assert hub.readings("run", 1, 20.0) == []
    assert time.monotonic() - began < 5


def test_a_hub_that_was_started_again_asks_for_the_trial_and_knows_what_was_told(
    hub: WatcherHub, tmp_path: Path
) -> None:
    hub.open(watched(tmp_path))
    hub.append("run", "client", 0, [metric(3.0, 1)])
    second = WatcherHub({})
    assert not second.append("run", "client", 1, [metric(2.0, 2)])
    second.open(watched(tmp_path))
    assert second.append("run", "client", 1, [metric(2.0, 2)])
    assert second.readings("run", 0, 0.0) == [Reading(3.0, 1), Reading(2.0, 2)]
    second.close(5.0)


def test_trials_are_kept_apart(hub: WatcherHub, tmp_path: Path) -> None:
    for run in ("a", "b"):
        hub.open(watched(tmp_path / run, run))
    hub.append("a", "client", 0, [metric(1.0)])
    hub.append("b", "client", 0, [metric(2.0)])
    assert [hub.readings(run, 0, 0.0)[0].value for run in ("a", "b")] == [1.0, 2.0]
    assert [len(list(read_events(tmp_path / run / "metrics.jsonl"))) for run in ("a", "b")] == [1, 1]


def test_a_trial_is_ended_by_its_pid(hub: WatcherHub, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        hub.open(watched(tmp_path, pid=process.pid))
        assert hub.interrupt("run")
        assert process.wait(10) == -15
    assert hub.interrupt("run")  # gone already: nothing happens
    hub.finish("run")
    assert not hub.interrupt("run")
