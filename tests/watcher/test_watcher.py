import importlib.util
import json
import threading
import time
from functools import partial

import pytest

from raysandbox.watcher import wandb
from raysandbox.watcher.config import WatchConfig
from raysandbox.watcher.metrics import Metric
from raysandbox.watcher.sinks import NullSink
from raysandbox.watcher.wandb import WandbSink
from raysandbox.watcher.watcher import SandboxWatcher


class StubRun:
    """Stands for wandb's run; `log` may be slow or fail."""

    def __init__(self, seconds=0.0, error=None):
        self.rows, self.config, self.finished = [], {}, False
        self.seconds, self.error = seconds, error

    def log(self, data, step=None):
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        self.rows.append((step, data))

    def finish(self):
        self.finished = True


class StubConfig(dict):
    def update(self, values, allow_val_change):
        super().update(values)


def config(tmp_path, **changes):
    return WatchConfig(
        **{"run_id": "run-1", "project": "p", "experiment": "e", "work_dir": tmp_path, "wandb": "disabled", **changes}
    )


def watcher_with(tmp_path, connect):
    def make_sink(log):
        return WandbSink(log, tmp_path / "metrics.wandb.json", "online", connect)

    return SandboxWatcher(config(tmp_path), make_sink)


def batch(count, start=0):
    return [Metric("train.loss", float(n), n, float(n)) for n in range(start, start + count)]


def recorded(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def connect_to(run):
    def connect(group):
        run.config = StubConfig()
        run.group = group
        return run

    return connect


def test_watch_and_query(tmp_path):
    watcher = SandboxWatcher(config(tmp_path))
    watcher.watch(0.5, "eval.score")
    watcher.watch({"acc": 0.75, "deep": {"f1": 0.25}}, "eval", step=2)
    watcher.watch(0, "eval.score")
    assert watcher.query("eval.score") == 0
    assert watcher.query("eval.deep.f1") == 0.25
    assert watcher.query("unheard of") is None
    watcher.finish()
    resumed = SandboxWatcher(config(tmp_path))
    assert resumed.query("eval.acc") == 0.75
    resumed.watch(1, "eval.score")
    assert [line["seq"] for line in recorded(tmp_path)] == [0, 1, 2, 3, 4]
    resumed.finish()


def test_several_threads_lose_nothing(tmp_path):
    watcher = SandboxWatcher(config(tmp_path))

    def send(client):
        for first in range(0, 200, 10):
            watcher.append(client, first, batch(10, first))

    threads = [threading.Thread(target=send, args=(f"c{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watcher.finish()
    lines = recorded(tmp_path)
    assert [line["seq"] for line in lines] == list(range(800))
    assert len({(line["client"], line["n"]) for line in lines}) == 800


def test_wandb_gets_rows_and_configurations(tmp_path):
    run = StubRun()
    watcher = watcher_with(tmp_path, connect_to(run))
    sweep = watcher.setup_sweep({"method": "random"}, "p")
    watcher.watch_cfgs([({"lr": 0.1, "api_key": "canary-canary"}, "sandbox")])
    watcher.watch({"loss": 1.0, "lr": 0.1}, "train", step=7)
    watcher.watch(0.5, "eval.score")
    state = watcher.finish(5)
    assert run.rows == [(0, {"train.loss": 1.0, "train.lr": 0.1, "step": 7}), (2, {"eval.score": 0.5})]
    assert run.group == sweep
    assert sweep.startswith("sweep-")
    assert run.config["sandbox"] == {"lr": 0.1, "api_key": "***"}
    assert run.config["sweep"]["method"] == "random"
    assert run.finished
    assert (state.given, state.failures) == (3, 0)


def test_slow_wandb_delays_nobody(tmp_path):
    watcher = watcher_with(tmp_path, connect_to(StubRun(seconds=10)))
    watcher.append("c", 0, batch(1))
    time.sleep(0.05)  # wandb is now in its first call
    start = time.perf_counter()
    watcher.append("c", 1, batch(100, 1))
    assert time.perf_counter() - start < 0.05
    start = time.perf_counter()
    state = watcher.finish(0.2)
    assert time.perf_counter() - start < 1
    assert state.failures == 1
    assert "did not finish" in state.error
    assert len(recorded(tmp_path)) == 101


def test_failing_wandb_is_said_once_and_caught_up_by_the_next_run(tmp_path, caplog):
    watcher = watcher_with(tmp_path, connect_to(StubRun(error=RuntimeError("429 Too Many Requests"))))
    for first in range(0, 30, 10):
        watcher.append("c", first, batch(10, first))
        time.sleep(0.02)
    state = watcher.finish(5)
    assert "429" in state.error
    assert caplog.text.count("429") == 1
    run = StubRun()
    resumed = watcher_with(tmp_path, connect_to(run))
    resumed.append("d", 0, batch(5, 30))
    resumed.finish(5)
    assert [row["train.loss"] for _, row in run.rows] == list(range(35))
    assert [step for step, _ in run.rows] == list(range(35))


def test_only_a_clean_end_moves_the_mark(tmp_path):
    first = StubRun()
    watcher = watcher_with(tmp_path, connect_to(first))
    watcher.append("c", 0, batch(3))
    deadline = time.monotonic() + 5
    while len(first.rows) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    # killed here: wandb's own process may not have written what it was given
    second = StubRun()
    watcher = watcher_with(tmp_path, connect_to(second))
    watcher.finish(5)
    third = StubRun()
    watcher = watcher_with(tmp_path, connect_to(third))
    watcher.append("c", 3, batch(1, 3))
    watcher.finish(5)
    assert len(second.rows) == 3
    assert [step for step, _ in third.rows] == [3]


def test_a_wandb_that_cannot_start_stops_nothing(tmp_path):
    def connect(group):
        raise ConnectionError("no network")

    watcher = watcher_with(tmp_path, connect)
    watcher.append("c", 0, batch(3))
    state = watcher.finish(5)
    assert "no network" in state.error
    assert len(recorded(tmp_path)) == 3


def test_a_silent_server_is_asked_again_and_gets_everything(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb, "_RETRY_S", 0.05)
    answers, run = iter(["no answer", "no answer"]), StubRun()

    def make_sink(log):
        silence = partial(next, answers, "")
        return WandbSink(log, tmp_path / "metrics.wandb.json", "online", connect_to(run), silence=silence)

    watcher = SandboxWatcher(config(tmp_path), make_sink)
    watcher.append("c", 0, batch(10))
    end = time.monotonic() + 20
    while len(run.rows) < 10 and time.monotonic() < end:
        time.sleep(0.02)
    state = watcher.finish(20)
    assert [row["train.loss"] for _, row in run.rows] == list(range(10))
    assert (state.failures, state.error) == (2, "no answer")
    assert caplog.text.count("no answer") == 1
    assert (tmp_path / "metrics.wandb.json").exists()


def test_what_a_silent_server_did_not_get_is_left_as_an_offline_run(tmp_path):
    never, offline = StubRun(), StubRun()

    def make_sink(log):
        ways = {"silence": lambda: "no answer", "offline": connect_to(offline)}
        return WandbSink(log, tmp_path / "metrics.wandb.json", "online", connect_to(never), **ways)

    watcher = SandboxWatcher(config(tmp_path), make_sink)
    watcher.append("c", 0, batch(10))
    state = watcher.finish(20)
    assert (len(never.rows), len(offline.rows), offline.finished) == (0, 10, True)
    assert "wandb sync" in state.error
    assert not (tmp_path / "metrics.wandb.json").exists()  # the next run gives everything to wandb


def test_what_wandb_did_not_take_in_time_is_told(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(wandb.atexit, "register", ended.append)
    watcher = watcher_with(tmp_path, connect_to(StubRun(seconds=10)))
    watcher.append("c", 0, batch(3))
    state = watcher.finish(0.5)
    assert "bytes of metrics.jsonl were not given to it" in state.error
    assert [function.__name__ for function in ended] == ["_end_service"]  # the process need not wait for it


def test_without_wandb_there_is_one_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    watcher = SandboxWatcher(config(tmp_path, wandb="online"))
    watcher.watch(1, "a.b")
    assert watcher.finish().mode == "not installed"
    assert caplog.text.count("wandb is not installed") == 1


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "disabled"),
        ({"WANDB_API_KEY": "k" * 40}, "online"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"NETRC": "netrc"}, "online"),
    ],
)
def test_auto(tmp_path, monkeypatch, environment, mode):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert config(tmp_path, wandb="auto").resolve_wandb() == mode


def test_null_sink_takes_everything():
    sink = NullSink()
    sink.wake()
    sink.configure({"a": 1}, "group")
    assert sink.close(0).mode == "disabled"


def test_offline_wandb_holds_everything_but_secrets(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("MY_API_KEY", "canary-in-env")
    monkeypatch.setattr("sys.argv", ["raysandbox", "-o", "key=canary-in-argv"])
    watcher = SandboxWatcher(config(tmp_path, wandb="offline"))
    watcher.watch_cfgs([({"token": "canary-in-config", "url": "http://x/canary-in-env"}, "sandbox")])
    for step in range(50):
        watcher.watch({"loss": step, "path": f"row{step:03d}/canary-in-env"}, "train", step)
    state = watcher.finish(30)
    assert (state.failures, state.given, state.error) == (0, 100, None)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    [run] = [path for path in files if path.suffix == ".wandb"]
    assert all(f"row{step:03d}".encode() in run.read_bytes() for step in range(50))
    assert b"canary" not in content
    assert "".join(capfd.readouterr()) == ""
