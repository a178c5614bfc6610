import json
import os
import pickle
import signal
import time

import pytest

from raysandbox.runtime import watcher_actor
from raysandbox.runtime.watcher_actor import WatcherClient, start_watcher
from raysandbox.watcher.config import WatchConfig


@pytest.fixture
def config(tmp_path):
    return WatchConfig("run-1", "project", "experiment", tmp_path / "run", wandb="disabled")


def recorded(config):
    return [json.loads(line) for line in (config.work_dir / "metrics.jsonl").read_text().splitlines()]


def test_in_process(config):
    client = start_watcher(config, actor=False)
    client.watch({"score": 0.5, "by": {"a": 1}}, "eval")
    client.scoped("train")({"loss": 2.0}, step=3)
    assert client.query("train.loss") == 2.0
    assert client.query("eval.by.a") == 1
    client.watch_cfgs([({"a": 1}, "sandbox")])
    assert client.setup_sweep({"method": "grid"}, "p") == client.setup_sweep({"method": "grid"}, "p")
    assert client.finish(60).mode == "disabled"
    client.watch(1, "too.late")
    assert [(line["name"], line["step"]) for line in recorded(config)] == [
        ("eval.score", None),
        ("eval.by.a", None),
        ("train.loss", 3),
    ]


def test_metrics_arrive_without_flush(config):
    client = start_watcher(config, actor=False)
    client.watch(1, "a.b")
    end = time.monotonic() + 60
    while not recorded(config) and time.monotonic() < end:
        time.sleep(0.02)
    assert len(recorded(config)) == 1
    client.finish(60)


class Flaky:
    """A transport whose watcher does the work and then fails to answer, every other time."""

    def __init__(self, transport):
        self.transport, self.calls = transport, 0

    def append(self, client, first, metrics):
        self.calls += 1
        if self.calls % 2:
            if self.calls % 4 == 1:
                self.transport.append(client, first, metrics)
            raise OSError("connection lost")
        self.transport.append(client, first, metrics)

    def __getattr__(self, name):
        return getattr(self.transport, name)


def test_lost_answers_double_nothing(config, monkeypatch):
    monkeypatch.setattr("raysandbox.runtime.watcher_actor._RETRY_S", 0.01)
    client = WatcherClient(Flaky(start_watcher(config, actor=False)._transport))
    for step in range(500):
        client.watch(step, "a.b", step)
        if step % 50 == 0:
            client.flush()
    client.finish(60)
    assert [line["value"] for line in recorded(config)] == list(range(500))


class Slow:
    """A transport that takes a moment for every batch."""

    def __init__(self, transport, seconds):
        self.transport, self.seconds, self.most = transport, seconds, 0

    def append(self, client, first, metrics):
        time.sleep(self.seconds)
        self.transport.append(client, first, metrics)

    def __getattr__(self, name):
        return getattr(self.transport, name)


def test_who_reports_faster_than_the_journal_takes_is_held_up(config, monkeypatch):
    monkeypatch.setattr(watcher_actor, "_MOST_WAITING", 50)
    for name in ("_BATCH", "_MAX_BATCH"):
        monkeypatch.setattr(watcher_actor, name, 20)
    client = WatcherClient(Slow(start_watcher(config, actor=False)._transport, 0.01))
    most = 0
    for step in range(1000):
        client.watch(step, "a.b", step)
        most = max(most, len(client._outbox._waiting))
    client.finish(30)
    assert most <= 50
    assert [line["value"] for line in recorded(config)] == list(range(1000))


class Dead:
    """A transport that never takes anything until it is told to."""

    def __init__(self, transport):
        self.transport, self.works = transport, False

    def append(self, client, first, metrics):
        if not self.works:
            raise OSError("no watcher")
        self.transport.append(client, first, metrics)

    def __getattr__(self, name):
        return getattr(self.transport, name)


def test_a_watcher_that_takes_nothing_holds_nobody_up_for_ever(config, monkeypatch, caplog):
    for name, value in {"_MOST_WAITING": 50, "_HELD_UP_S": 0.2, "_RETRY_S": 0.05}.items():
        monkeypatch.setattr(watcher_actor, name, value)
    way = Dead(start_watcher(config, actor=False)._transport)
    client = WatcherClient(way)
    for step in range(80):
        client.watch(step, "a.b", step)
    way.works = True
    client.finish(30)
    assert [line["value"] for line in recorded(config)] == list(range(50))
    assert caplog.text.count("new ones are passed over until it does") == 1
    assert "30 metrics could not be recorded" in caplog.text


def test_actor(cluster, config):
    import ray

    client = start_watcher(config, actor=True)

    @ray.remote(num_cpus=0.5)
    def work(client, name):
        report = client.scoped(name)
        for step in range(250):
            report({"loss": step}, step)
        client.flush()

    ray.get([work.remote(client, name) for name in ("a", "b")])
    client.watch(1, "driver.x")
    assert client.query("a.loss") == 249
    assert client.query("driver.x") == 1
    assert pickle.loads(pickle.dumps(client)).query("b.loss") == 249
    # The next run of the same name finds the name free, also after a killed driver.
    again = start_watcher(config, actor=True)
    assert again.query("a.loss") == 249
    again.finish(60)
    names = [line["name"] for line in recorded(config)]
    assert (names.count("a.loss"), names.count("b.loss"), len(names)) == (250, 250, 501)


def test_a_killed_watcher_loses_and_doubles_nothing(cluster, config):
    import ray

    client = start_watcher(config, actor=True)
    client.flush()
    pids = []
    for step in range(3000):
        client.watch(step, "a.b", step)
        if step % 1000 == 500:
            actor = client._transport.actor
            pids.append(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())))
            os.kill(pids[-1], signal.SIGKILL)
        time.sleep(0.0005)
    assert client.flush(120)
    client.finish(60)
    assert len(set(pids)) == 3
    assert [line["value"] for line in recorded(config)] == list(range(3000))
    assert [line["seq"] for line in recorded(config)] == list(range(3000))


@pytest.mark.slow
def test_killed_under_load(cluster, config):
    """10,000 metrics a second from two clients; the watcher is killed twice; none is lost or doubled."""
    import ray

    client = start_watcher(config, actor=True)
    client.flush()
    seconds, rate = 6, 5000

    @ray.remote(num_cpus=0.5)
    def work(client, name):
        start = time.monotonic()
        for step in range(seconds * rate // 50):
            client.report({f"{name}.{n}": step for n in range(50)}, step)
            time.sleep(max(start + step * 50 / rate - time.monotonic(), 0.0))
        took = time.monotonic() - start
        return client.flush(60), took

    calls = [work.remote(client, name) for name in ("a", "b")]
    for _ in range(2):
        time.sleep(2.0)
        pid = ray.get(client._transport.actor.__ray_call__.remote(lambda self: os.getpid()), timeout=60)
        os.kill(pid, signal.SIGKILL)
    said = ray.get(calls, timeout=120)
    assert all(sent for sent, _ in said)
    client.finish(5)
    lines = recorded(config)
    assert [line["seq"] for line in lines] == list(range(2 * seconds * rate))
    assert len({(line["client"], line["n"]) for line in lines}) == 2 * seconds * rate
    print("seconds for", seconds, "of load:", [round(took, 2) for _, took in said])
