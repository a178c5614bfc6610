"""Generation in the workers of a cluster, and through the command line with the driver killed."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.core.events import read_events
from raysandbox.core.progress import Progress
from raysandbox.executors.infer.diffusers import DiffusersInference
from raysandbox.executors.infer.fake import FakeInference
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.executors.video.in_process import InProcessSession, InProcessWorkers

PROMPTS = ["a cat", "b/c", "😀", "last one"]


@dataclass(frozen=True)
class Job:
    resources: Resources
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    id: str = "anonymous.generate#0"


def on_cluster(folder: Path, number: int) -> InProcessSession:
    """A session whose workers are Ray's."""
    workers: Any = JobWorkers(
        Job(Resources(num_workers=number, num_cpus=0.5, num_gpus=0)), folder / "log" / "job.log", Progress()
    )
    return InProcessSession(folder, workers, use_cache=False)


def config(folder: Path, **more: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return {
        "prompts": str(folder / "prompts.txt"),
        "videos_per_prompt": 3,
        "output_dir": str(folder / "videos"),
        "contact_sheet": False,
        **more,
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    FakeInference(**config(folder, seconds=0)).infer(InProcessSession(folder, InProcessWorkers()))
    return contents(folder / "videos")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("number", [1, 2, 4])
def test_any_number_of_workers_makes_the_same_bytes(tmp_path, expected, number):
    session = on_cluster(tmp_path, number)
    FakeInference(**config(tmp_path, seconds=0.1)).infer(session)
    assert contents(tmp_path / "videos") == expected
    assert len({event["worker"] for event in session.told("unit_done")}) in range(min(number, 2), number + 1)


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_costs_its_current_video_only(tmp_path, expected):
    session = on_cluster(tmp_path, 2)
    crashing = config(tmp_path, seconds=0.05, crash_on=["a cat-1.mp4", "😀-2.mp4"], bad_tries=1)
    FakeInference(**crashing).infer(session)
    assert contents(tmp_path / "videos") == expected
    made = Counter(event["file"] for event in session.told("unit_done"))
    assert set(made.values()) == {1}
    assert set(made) == set(expected)
    assert not list((tmp_path / "videos" / ".records").glob("tmp-*"))


@pytest.mark.usefixtures("cluster")
def test_a_video_that_always_kills_its_worker_is_given_up(tmp_path, expected):
    session = on_cluster(tmp_path, 2)
    crashing = config(tmp_path, seconds=0, crash_on=["b_c~8bca2c33-1.mp4", "a cat-0.mp4"], max_failed=2)
    FakeInference(**crashing).infer(session)
    failed = {event["file"] for event in session.told("unit_failed")}
    assert "a cat-0.mp4" in failed
    assert contents(tmp_path / "videos") == {name: item for name, item in expected.items() if name not in failed}


@pytest.mark.usefixtures("cluster")
def test_a_tiny_model_makes_the_same_bytes_in_two_workers(tmp_path, tiny_easyanimate):
    size = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "dtype": "fp32"}
    # Without the workers that only encode prompts: each imports diffusers anew.
    model = {**size, "model": str(tiny_easyanimate), "videos_per_prompt": 1, "encode_prompts_first": False}
    DiffusersInference(**config(tmp_path / "here", **model)).infer(InProcessSession(tmp_path / "here", use_cache=False))
    DiffusersInference(**config(tmp_path / "there", **model)).infer(on_cluster(tmp_path / "there", 2))
    here, there = contents(tmp_path / "here" / "videos"), contents(tmp_path / "there" / "videos")
    assert len(here) == 4
    assert here == there


def experiment(folder: Path, **more: Any) -> tuple[list[str], Path]:
    """The command that runs a generation, and the run's folder."""
    job = {
        "hook": "InferModelHook",
        "meta_name": "generate",
        "output": ["videos"],
        "resources": {"num_workers": 2, "num_cpus": 0.5},
        "extra_configs": {"type": "fake", **config(folder, **more)},
    }
    (folder / "cfg.yaml").write_text(yaml.safe_dump({"work_dir": "work", "execution_job_configs": [job]}))
    return [sys.executable, "-m", "raysandbox", "run", "cfg.yaml", "--no-cache"], folder / "work"


def events(work: Path, name: str) -> list[dict[str, Any]]:
    return [dict(event) for event in read_events(work / "journal.jsonl") if event["event"] == name]


@pytest.mark.parametrize("default_folder", [True, pytest.param(False, marks=pytest.mark.chaos)])
def test_kill_9_of_the_driver_and_resume(tmp_path, expected, default_folder):
    more = {"output_dir": None} if default_folder else {}
    command, work = experiment(tmp_path, seconds=0.25, contact_sheet=True, **more)
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        end = time.monotonic() + 100
        while len(events(work, "unit_done")) < 4:
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    done = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (outputs,) = json.loads((work / "context_infos.json").read_text())[0]["pipeline_infos"][0]["job_infos"]
    assert contents(tmp_path / outputs["videos"]) == expected
    made = Counter(event["file"] for event in events(work, "unit_done"))
    assert set(made.values()) == {1}
    found = events(work, "units_found")[-1]["found"]
    after = [event for event in events(work, "unit_done") if event["run"] == events(work, "units_found")[-1]["run"]]
    assert found >= 4
    assert found + len(after) == len(expected) == 12
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(("tmp-", ".tmp-"))]
    assert next(work.rglob("contact_sheet.png")).stat().st_size > 1000
