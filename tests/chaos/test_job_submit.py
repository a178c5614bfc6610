"""The demo as a Ray job on two raylets: submitted, stopped, resumed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.events import read_events
from tests.chaos.raylets import RAY, Raylets, raylets

ROOT = Path(__file__).parents[2]
CONFIG = "configs/demo/sandbox.yaml"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Cluster:
    """Two raylets, and the submitted folder."""

    raylets: Raylets
    folder: Path

    @property
    def outputs(self) -> Path:
        return self.raylets.folder / "home/raysandbox/outputs/demo-sandbox"

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RAY, *arguments],
            cwd=self.folder,
            env=self.raylets.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    @property
    def dashboard(self) -> str:
        return self.raylets.dashboard

    def submit(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Submits until the job server, which starts after the raylet, has an agent for it."""
        command = ["job", "submit", "--address", self.dashboard, "--working-dir", ".", *more]
        for _ in range(20):
            done = self.ray(*command)
            if "No available agent" not in done.stderr and "Failed to connect" not in done.stderr:
                return done
            time.sleep(3)
        raise AssertionError(done.stderr)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "submitted"
    shutil.copytree(ROOT / "configs/demo", folder / "configs/demo")
    shutil.copytree(ROOT / "raysandbox", folder / "raysandbox", ignore=shutil.ignore_patterns("__pycache__"))
    if not (folder / "configs/demo/data/.complete").exists():
        subprocess.run([ROOT / "scripts/make_demo_inputs", str(folder / "configs/demo/data")], check=True, timeout=300)
    with raylets(tmp_path, 2, 3) as running:
        yield Cluster(running, folder)


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
    done = sorted(event["job"] for event in read_events(journal) if event["event"] == "job_done")
    assert len(done) >= 3  # what the training needs, and what runs beside it

    resumed = cluster.submit("--submission-id", "second", *run, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    found = json.loads(status.read_text())
    assert (found["state"], found["exit"]) == ("done", 0)
    assert sorted(event["job"] for event in read_events(journal) if event["event"] == "job_cached") == done

    refused = cluster.submit("--", "python", "-m", "raysandbox", "run", CONFIG, "-o", "max_iter_num=0")
    assert refused.returncode == 1  # Ray's job server knows 0 and 1 only


def test_a_whole_run_and_its_status(cluster: Cluster) -> None:
    done = cluster.submit("--", "python", "-m", "raysandbox", "run", CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads((cluster.outputs / "status.json").read_text())
    assert (status["state"], status["exit"], set(status["jobs"].values())) == ("done", 0, {"done"})
    assert "outputs go below" in done.stdout  # RAYSANDBOX_ROOT is not set: said with the absolute path
    assert str(cluster.outputs.parents[1]) in done.stdout
