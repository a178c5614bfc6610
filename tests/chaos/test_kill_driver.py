"""`kill -9` of the driver, then `run --resume`: nothing finished runs again, nothing differs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from raysandbox.core.events import read_events

ROOT = Path(__file__).parents[2]
JOBS = (
    "analysis_ori_data#0",
    "analysis_ori_data#1",
    "process_data#2",
    "train_model#3",
    "analysis_processed_data#4",
    "eval_data#5",
)

QUICK = """
work_dir: work
max_parallel_jobs: 1
probe_job_configs:
  - {hook: ProbeViaAnalyzerHook, meta_name: a, dj_configs: {dataset_path: data.jsonl, process: [text_length_filter]}}
execution_job_configs:
  - {hook: ProcessDataHook, meta_name: p, output: [path],
     dj_configs: {dataset_path: data.jsonl, export_path: work/kept.jsonl, process: [text_length_filter: {min_len: 6}]}}
  - {hook: TrainModelHook, meta_name: t, output: [model], input: {extra_configs.train_dataset: -1.path},
     extra_configs: {type: fake, work_dir: work/model, steps: 40, seconds_per_step: 0.1}}
"""


def command(config: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "raysandbox", "run", config, *more]


def run(folder: Path, arguments: Sequence[str]) -> None:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def events(work: Path, name: str) -> list[str]:
    return [event["job"] for event in read_events(work / "journal.jsonl") if event["event"] == name]


def start_and_kill(folder: Path, arguments: Sequence[str], work: Path, job: str, signum: int) -> int:
    """Sends the signal to the driver when `job` has started; returns its exit status."""
    with (folder / "killed.log").open("wb") as log:
        driver = subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 200
            while not any(started.endswith(job) for started in events(work, "job_started")):
                assert driver.poll() is None, (folder / "killed.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.002)
            driver.send_signal(signum)
            return driver.wait(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                driver.kill()


# Ray's agents notice the end of their raylet only after about a minute when it was killed.
SLOW_TO_NOTICE = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def assert_no_orphans(folder: Path) -> None:
    """No process that works in the folder is left."""
    end = time.monotonic() + 30
    while True:
        left = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            with contextlib.suppress(psutil.Error):
                ours = process.pid != os.getpid() and process.cwd().startswith(str(folder))
                if ours and process.cmdline()[:1] not in [[name] for name in SLOW_TO_NOTICE]:
                    left.append(process.info)
        if not left:
            return
        assert time.monotonic() < end, left
        time.sleep(0.5)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_killed_training_is_resumed_and_leaves_no_orphan(tmp_path: Path, signum: int, status: int) -> None:
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(1, 20)))
    (tmp_path / "a.yaml").write_text(QUICK)
    work = tmp_path / "work"
    assert start_and_kill(tmp_path, command("a.yaml"), work, "t#2", signum) == status
    if signum != signal.SIGKILL:
        found = json.loads((work / "status.json").read_text())
        assert (found["state"], found["exit"]) == ("interrupted", status)
    assert_no_orphans(tmp_path)
    run(tmp_path, command("a.yaml", "--resume"))
    assert events(work, "job_cached") == ["anonymous.a#0", "anonymous.p#1"]
    assert events(work, "job_started") == ["anonymous.a#0", "anonymous.p#1", "anonymous.t#2", "anonymous.t#2"]
    assert json.loads((work / "status.json").read_text())["state"] == "done"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's configuration and inputs, and an undisturbed run of it in `outputs`."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "configs/demo", folder / "configs/demo")
    if not (folder / "configs/demo/data/.complete").exists():
        subprocess.run([ROOT / "scripts/make_demo_inputs", str(folder / "configs/demo/data")], check=True, timeout=300)
    run(folder, command("configs/demo/sandbox.yaml"))
    return folder


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", JOBS)
def test_the_demo_survives_kill_9_during_each_job(demo: Path, tmp_path: Path, job: str) -> None:
    undisturbed = json.loads((demo / "outputs/demo-sandbox/context_infos.json").read_text())
    shutil.copytree(demo / "configs", tmp_path / "configs")
    work = tmp_path / "outputs/demo-sandbox"
    for _ in range(5):  # a job of milliseconds may end before the signal arrives: then try again
        assert start_and_kill(tmp_path, command("configs/demo/sandbox.yaml"), work, job, signal.SIGKILL) == -9
        finished = events(work, "job_done")
        if not any(done.endswith(job) for done in finished):
            break
        shutil.rmtree(tmp_path / "outputs")
    assert not any(done.endswith(job) for done in finished)
    run(tmp_path, command("configs/demo/sandbox.yaml", "--resume"))
    assert sorted(events(work, "job_cached")) == sorted(finished)  # jobs may run at the same time
    assert all(events(work, "job_started").count(done) == 1 for done in finished)
    assert json.loads((work / "context_infos.json").read_text()) == undisturbed
