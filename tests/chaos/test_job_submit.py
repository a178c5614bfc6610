"""The demo as a Ray job on two raylets: submitted, stopped, resumed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.events import read_events

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
CONFIG = "configs/demo/sandbox.yaml"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Cluster:
    """A head and a second raylet on loopback, and the submitted folder."""

    dashboard: str
    environment: dict[str, str]
    folder: Path
    outputs: Path

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RAY, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def submit(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Submits until the job server, which starts after the raylet, has an agent for it."""
        command = ["job", "submit", "--address", self.dashboard, "--working-dir", ".", *more]
        for _ in range(20):
            done = self.ray(*command)
            if "No available agent" not in done.stderr and "Failed to connect" not in done.stderr:
                return done
            time.sleep(3)
        raise AssertionError(done.stderr)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    gcs, dashboard = free_port(), free_port()
    environment = {
        **os.environ,
        "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    folder = tmp_path / "submitted"
    (tmp_path / "home").mkdir()
    shutil.copytree(ROOT / "configs/demo", folder / "configs/demo")
    shutil.copytree(ROOT / "raysandbox", folder / "raysandbox", ignore=shutil.ignore_patterns("__pycache__"))
    if not (folder / "configs/demo/data/.complete").exists():
        subprocess.run([ROOT / "scripts/make_demo_inputs", str(folder / "configs/demo/data")], check=True, timeout=300)
    common = ["--block", "--num-cpus=2", "--disable-usage-stats"]
    head = ["--head", "--node-ip-address=127.0.0.2", f"--port={gcs}", "--dashboard-host=127.0.0.1"]
    head += [f"--dashboard-port={dashboard}"]
    second = [f"--address=127.0.0.2:{gcs}", "--node-ip-address=127.0.0.3"]
    with contextlib.ExitStack() as stack:
        for name, arguments in (("head", head), ("second", second)):
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            command = [str(RAY), "start", *arguments, *common, f"--dashboard-agent-listen-port={free_port()}"]
            raylet = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            stack.callback(raylet.wait, timeout=60)
            stack.callback(raylet.terminate)
            time.sleep(10)
        yield Cluster(
            f"http://127.0.0.1:{dashboard}", environment, folder, tmp_path / "home/raysandbox/outputs/demo-sandbox"
        )


def test_submitted_stopped_and_resumed(cluster: Cluster) -> None:
    run = ["--", "python", "-m", "raysandbox", "run", CONFIG]
    submitted = cluster.submit("--no-wait", "--submission-id", "first", *run)
    assert submitted.returncode == 0, submitted.stderr
    journal, status = cluster.outputs / "journal.jsonl", cluster.outputs / "status.json"
    end = time.monotonic() + 200
    while not any(e["event"] == "job_started" and "train_model" in e["job"] for e in read_events(journal)):
        assert time.monotonic() < end, cluster.ray("job", "logs", "--address", cluster.dashboard, "first").stdout
        time.sleep(0.2)
    time.sleep(3)  # into the training
    assert cluster.ray("job", "stop", "--address", cluster.dashboard, "first").returncode == 0
    end = time.monotonic() + 60
    while json.loads(status.read_text())["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.2)
    found = json.loads(status.read_text())
    assert (found["state"], found["exit"]) == ("interrupted", 143)

    resumed = cluster.submit("--submission-id", "second", *run, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    found = json.loads(status.read_text())
    assert (found["state"], found["exit"]) == ("done", 0)
    cached = [event["job"] for event in read_events(journal) if event["event"] == "job_cached"]
    assert [job.rpartition("#")[2] for job in cached] == ["0", "1", "2"]

    refused = cluster.submit("--", "python", "-m", "raysandbox", "run", CONFIG, "-o", "max_iter_num=0")
    assert refused.returncode == 1  # Ray's job server knows 0 and 1 only


def test_a_whole_run_and_its_status(cluster: Cluster) -> None:
    done = cluster.submit("--", "python", "-m", "raysandbox", "run", CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads((cluster.outputs / "status.json").read_text())
    assert (status["state"], status["exit"], set(status["jobs"].values())) == ("done", 0, {"done"})
    assert "outputs go below" in done.stdout  # RAYSANDBOX_ROOT is not set: said with the absolute path
    assert str(cluster.outputs.parents[1]) in done.stdout
