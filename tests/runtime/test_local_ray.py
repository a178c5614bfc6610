"""A local Ray that does not start: one message, and one more try where it was late."""

import errno
import json
import os
import subprocess
import sys

import pytest

from raysandbox.core.errors import UserError
from raysandbox.runtime import local_ray, session

LATE = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


@pytest.fixture
def inits(monkeypatch):
    """What each call of a fake `ray.init` raises, None for nothing; calls take from its beginning."""
    ray = pytest.importorskip("ray")
    planned, called = [], []

    def init(**given):
        called.append(given)
        error = planned.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(session, "_started", session._started)
    monkeypatch.setattr(session.atexit, "register", lambda function: None)
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    monkeypatch.setattr(local_ray, "_room", lambda folder: 1e12)
    monkeypatch.setattr(local_ray, "forget_token", lambda: None)  # that of this process's own Ray
    return planned, called


@pytest.mark.parametrize(
    "late", [Exception(LATE), TimeoutError("no answer"), RuntimeError("Timed out waiting for file")]
)
def test_one_that_is_late_is_started_once_more(inits, caplog, late):
    planned, called = inits
    planned += [late, None]
    session.ensure_ray(num_cpus=1)
    assert [given["address"] for given in called] == ["local", "local"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a local Ray did not start in time: ")
    assert said.endswith("it is started once more")
    assert session.is_local()


def test_one_that_is_late_twice(inits):
    planned, called = inits
    planned += [Exception(LATE), Exception(LATE)]
    with pytest.raises(UserError, match=r"not start in time: The current node timed out.*twice.*busy.*RAY_ADDRESS"):
        session.ensure_ray()
    assert len(called) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"/nowhere/ray, where it keeps.*MB free \(make room there"),
        (
            PermissionError(errno.EACCES, "no", "/tmp/ray"),
            r"cannot start: .*/tmp/ray.*set RAY_TMPDIR to a folder of yours",
        ),
        (
            RuntimeError("Failed to start GCS.\n" + "x" * 900 + "Address already in use"),
            "xxx .*unset RAY_GCS_SERVER_PORT",
        ),
        (
            RuntimeError("Failed to start GCS.\nLast connection error: None"),
            "Failed to start GCS. Last connection error",
        ),
        (Exception(""), r"cannot start: Exception \("),
    ],
)
def test_one_that_cannot_start_is_not_tried_again(inits, error, message):
    planned, called = inits
    planned += [error]
    with pytest.raises(UserError, match=message) as caught:
        session.ensure_ray()
    assert len(called) == 1
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 800


def test_a_full_disk_shows_as_something_that_is_late(inits, monkeypatch):
    planned, called = inits
    monkeypatch.setattr(local_ray, "_room", lambda folder: 1e6)
    planned += [RuntimeError("Timed out waiting for file /nowhere/ray/session/gcs_server_port")]
    with pytest.raises(UserError, match=r"/nowhere/ray, where it keeps its session, has 1 MB free"):
        session.ensure_ray()
    assert len(called) == 1


def test_what_a_failed_start_leaves_is_ended(inits, monkeypatch):
    ray = pytest.importorskip("ray")
    ended = []

    class Node:
        def start_head_processes(self):
            pass

        start_api_server = start_head_processes

        def kill_all_processes(self, **how):
            ended.append(how)

        def get_logs_dir_path(self):
            return "/nowhere/ray/session/logs"

    def init(**_):
        Node().start_head_processes()
        raise ValueError("no memory")

    monkeypatch.setattr("ray._private.node.Node", Node)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match="no memory; its logs are in /nowhere/ray/session/logs"):
        session.ensure_ray()
    assert ended == [{"check_alive": False, "allow_graceful": False}]


def test_a_run_says_it_in_one_message(tmp_path):
    (tmp_path / "data.jsonl").write_text("{}\n")
    training = {"type": "fake", "work_dir": "work/model", "steps": 1, "train_dataset": "data.jsonl"}
    job = {"hook": "TrainModelHook", "extra_configs": training}
    (tmp_path / "a.yaml").write_text(json.dumps({"work_dir": "work", "execution_job_configs": [job]}))
    done = subprocess.run(
        [sys.executable, "-m", "raysandbox", "run", "a.yaml"],
        cwd=tmp_path,
        env={**os.environ, "RAY_TMPDIR": "/proc/nowhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "a local Ray cannot start: " in done.stderr
    assert "RAY_TMPDIR" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert json.loads((tmp_path / "work/status.json").read_text())["state"] == "failed"
