import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raysandbox.core.errors import JobFailed, JobTimeout, RunInterrupted
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.signals import deadline, interruptible
from raysandbox.runtime.train_session import Training
from raysandbox.runtime.watcher_actor import Reporter, WatcherClient, start_watcher
from raysandbox.runtime.workers import run_in_worker
from raysandbox.watcher.config import WatchConfig


@dataclass(frozen=True)
class Job:
    resources: Resources = field(default_factory=Resources)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    id: str = "anonymous.train#0"
    name: str = "train"


@dataclass(frozen=True)
class Context:
    log: Path
    watcher: WatcherClient
    report: Reporter
    events: list = field(default_factory=list)

    def emit(self, event, **fields):
        self.events.append((event, fields))


@pytest.fixture
def context(cluster, tmp_path):
    watcher = start_watcher(WatchConfig("run-1", "p", "e", tmp_path, wandb="disabled"), actor=True)
    yield Context(tmp_path / "logs" / "train.log", watcher, watcher.scoped("train"))
    watcher.finish(60)


class Trainer(ModelTrainer):
    """A training of a few lines; what it does is in `act`."""

    act: str = ""
    folder: str = ""

    def train(self, session):
        return getattr(self, f"_{self.act}")(session)

    def _good(self, session):
        print("to standard output", flush=True)
        subprocess.run([sys.executable, "-c", "print('from a child'); print('key', 'canary-in-env')"], check=True)
        for step in range(5):
            session.report({"loss": 1 / (step + 1)}, step)
        (session.log_dir / "own.txt").write_text("x")
        print("output:", os.readlink("/proc/self/fd/1"))
        print(os.environ.get("MINE"), os.environ.get("OMP_NUM_THREADS"))
        return session.device

    def _fail(self, session):
        for number in range(100):
            print("line", number)
        raise ValueError("the loss is not a number, canary-in-env")

    def _own_message(self, session):
        raise JobFailed("no model was written")

    def _exit(self, session):
        sys.exit(3)

    def _die_once(self, session):
        flag = Path(self.folder, "died")
        print("attempt", flag.exists(), flush=True)
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second attempt"

    def _where(self, session):
        return os.getcwd()

    def _die(self, session):
        os.write(2, b"last words")
        os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, session):
        child = subprocess.Popen(["sleep", "600"])
        apart = subprocess.Popen(["sleep", "601"], start_new_session=True)
        Path(self.folder, "pids").write_text(f"{os.getpid()} {child.pid} {apart.pid}")
        child.wait()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(folder):
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    end = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_training(context, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "canary-in-env")
    job = Job(Resources(num_gpus=1, num_cpus=2), {"env_vars": {"MINE": "from the job"}})
    assert run_in_worker(Trainer(act="good"), job, context) == "cpu"  # its GPU exists in name only
    log = context.log.read_text()
    for line in ("to standard output", "from a child", "key ***", "from the job"):
        assert line in log
    assert context.watcher.query("train.loss") == 0.2
    assert (context.log.parent / "train" / "own.txt").exists()
    [output] = [line for line in log.splitlines() if "| output: " in line]
    assert not Path(output.split("| output: ")[1]).exists()


def test_a_worker_is_where_the_driver_is(context, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # after Ray has started
    assert run_in_worker(Trainer(act="where"), Job(), context) == str(tmp_path)


def test_a_worker_that_lacks_the_drivers_folder_stays_where_it_is(context, tmp_path):
    log_dir = context.log.with_suffix("")
    training = Training(Trainer(act="where"), context.report, False, log_dir, folder=tmp_path / "elsewhere")
    assert training.run() == os.getcwd()


def test_a_failure_shows_message_and_log(context, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "canary-in-env")
    with pytest.raises(JobFailed) as caught:
        run_in_worker(Trainer(act="fail"), Job(), context)
    message = str(caught.value)
    assert message.startswith("ValueError: the loss is not a number, ***\nlast lines of")
    assert "line 99" in message
    assert "line 5\n" not in message
    assert len(message.splitlines()) < 25
    assert "Traceback" in context.log.read_text()
    assert "canary" not in message + context.log.read_text()


@pytest.mark.parametrize(("act", "message"), [("own_message", "no model was written\n"), ("exit", "with status 3")])
def test_messages(context, act, message):
    with pytest.raises(JobFailed, match=message):
        run_in_worker(Trainer(act=act), Job(), context)


def test_a_lost_worker_is_replaced(context, tmp_path):
    assert run_in_worker(Trainer(act="die_once", folder=str(tmp_path)), Job(), context) == "second attempt"
    lines = [line.split("| ")[-1] for line in context.log.read_text().splitlines()]
    assert [line for line in lines if line.startswith("attempt")] == ["attempt False", "attempt True"]
    assert [event for event, _ in context.events] == ["worker_started", "worker_lost", "worker_started"]
    assert {fields["node"] for event, fields in context.events if event == "worker_started"} == {"127.0.0.1"}


def test_a_worker_that_always_dies(context):
    with pytest.raises(JobFailed, match=r"(?s)the worker died 3 times: .*last words"):
        run_in_worker(Trainer(act="die"), Job(), context)


def test_a_deadline_ends_the_worker_and_its_children(context, tmp_path):
    for seconds in (4, 20, 100):  # on a busy machine a worker takes long to come up
        with pytest.raises(JobTimeout), deadline(seconds):
            run_in_worker(Trainer(act="hang", folder=str(tmp_path)), Job(), context)
        if (tmp_path / "pids").exists():
            break
    assert all_gone(tmp_path)


def test_an_interruption_ends_the_worker_and_its_children(context, tmp_path):
    def interrupt():
        while not (tmp_path / "pids").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(RunInterrupted), interruptible():
        run_in_worker(Trainer(act="hang", folder=str(tmp_path)), Job(), context)
    assert all_gone(tmp_path)


def test_several_workers_are_refused(context):
    with pytest.raises(JobFailed, match="num_workers is 2"):
        run_in_worker(Trainer(act="good"), Job(Resources(num_workers=2)), context)


def test_an_interpreter_that_is_not_there(context):
    with pytest.raises(JobFailed, match="no/such/python does not exist"):
        run_in_worker(Trainer(act="good"), Job(runtime_env={"py_executable": "no/such/python"}), context)
