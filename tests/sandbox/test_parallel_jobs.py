"""Whole runs whose jobs and elements go at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import JobFailed, JobTimeout
from raysandbox.core.events import read_events
from raysandbox.report.summary import collect
from raysandbox.sandbox.experiment import run_experiment

Make = Callable[[str], SandboxConfig]

EACH = """
work_dir: WORK
max_parallel_jobs: MOST
probe_job_configs:
  - {hook: WriteHook, meta_name: list, output: [path, value], extra_configs: {value: [c, a, d, b]}}
execution_job_configs:
  - {hook: WriteHook, meta_name: each, foreach: anonymous.list.value, input: {extra_configs.text: item}, output: [path],
     extra_configs: {path: WORK/element.txt, sleep_s: 0.5}}
  - {hook: WriteHook, meta_name: beside, output: [path], extra_configs: {path: WORK/beside.txt, sleep_s: 0.1}}
evaluation_job_configs:
  - {hook: WriteHook, meta_name: last, input: {extra_configs.value: anonymous.each.path}, output: [path, value]}
"""


def config(make: Make, work: str, most: int | str = "null") -> SandboxConfig:
    return make(EACH.replace("WORK", work).replace("MOST", str(most)))


def contents(work: Path) -> dict[str, Any]:
    """What a run leaves that may be compared with another one: not what holds times, and no name of the folder."""
    made = {str(path.relative_to(work)): path.read_text() for path in sorted(work.rglob("*.txt"))}
    infos = (work / "context_infos.json").read_text().replace(str(work), "WORK").replace(f"{work.name}/", "WORK/")
    status = json.loads((work / "status.json").read_text())["jobs"]
    return {"files": made, "infos": infos, "status": list(status.items()), "scores": collect(work).scores}


def test_results_are_those_of_one_after_the_other(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    began = time.monotonic()
    run_experiment(config(make_config, "run_one", 1))
    alone, began = time.monotonic() - began, time.monotonic()
    run_experiment(config(make_config, "run_many", 4))
    together = time.monotonic() - began
    assert contents(workspace / "run_many") == contents(workspace / "run_one")
    assert (workspace / "run_many/01-each.2/element.txt").read_text() == "d"
    assert alone > 2
    assert together < 0.8 * alone
    run_experiment(config(make_config, "run_many", 4), resume=True)
    assert runs == {"list": 2, "each": 8, "beside": 2, "last": 2}


def test_records_go_to_the_log_of_their_job(make_config: Make, workspace: Path) -> None:
    import logging

    class Talker:
        @staticmethod
        def speak(text: str) -> None:
            logging.getLogger("test").warning("I am %s", text)

    from tests.sandbox import conftest

    before = conftest.WriteHook.run

    def run(self: Any, job: Any, context: Any) -> Any:
        found = before(self, job, context)
        Talker.speak(job.extra.get("text", "nobody"))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest.WriteHook, "run", run)
        run_experiment(config(make_config, "run_many", 4))
    for index, text in enumerate("cadb"):
        log = (workspace / f"run_many/logs/01-each.{index}/01-each.{index}.log").read_text()
        assert [line.rpartition(" ")[2] for line in log.splitlines()] == [text]


def test_equal_elements_are_done_once(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    run_experiment(make_config(EACH.replace("WORK", "w").replace("MOST", "4").replace("[c, a, d, b]", "[x, x, x]")))
    assert runs["each"] == 1
    assert [(workspace / f"w/01-each.{index}/element.txt").read_text() for index in range(3)] == ["x"] * 3


def test_one_fails_and_what_runs_beside_it_is_given_up(make_config: Make, workspace: Path, runs: Counter[str]) -> None:
    text = """
work_dir: work
max_parallel_jobs: 4
probe_job_configs:
  - {hook: WriteHook, meta_name: list, output: [path, value], extra_configs: {value: [1.0]}}
execution_job_configs:
  - {hook: WriteHook, meta_name: other, foreach: anonymous.list.value, input: {extra_configs.sleep_s: item}}
  - {hook: BreakHook, meta_name: breaks, foreach: anonymous.list.value}
  - {hook: WriteHook, meta_name: after, input: {extra_configs.value: anonymous.list.value}, extra_configs: {reads: x}}
"""
    (workspace / "x").write_text("")
    with pytest.raises(JobFailed, match="breaks#2 failed: ZeroDivisionError"):
        run_experiment(make_config(text))
    status = json.loads((workspace / "work/status.json").read_text())
    assert (status["state"], status["exit"]) == ("failed", 1)
    assert status["jobs"]["anonymous.breaks#2"] == "failed"
    names = [event["event"] for event in read_events(workspace / "work/journal.jsonl")]
    assert "job_failed" in names
    assert "job_given_up" in names
    assert status["jobs"]["anonymous.other#1"] == "pending"


def test_a_limit_ends_only_its_element(make_config: Make, workspace: Path) -> None:
    text = """
work_dir: work
max_parallel_jobs: 2
probe_job_configs:
  - {hook: WriteHook, meta_name: list, output: [path, value], extra_configs: {value: [0.1, 3.0]}}
execution_job_configs:
  - {hook: WriteHook, meta_name: each, foreach: anonymous.list.value, input: {extra_configs.sleep_s: item},
     timeout_s: 1.5}
"""
    with pytest.raises(JobTimeout, match=r"each#1 ran past its timeout_s of 1\.5 s"):
        run_experiment(make_config(text))
    done = [event["scope"] for event in read_events(workspace / "work/journal.jsonl") if event["event"] == "job_done"]
    assert done == ["", "01-each.0"]


def driver(workspace: Path, seconds: str, *options: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("parallel_driver.py")
    return subprocess.Popen([sys.executable, str(script), seconds, *options], cwd=workspace, text=True)


def wait_until_waiting(workspace: Path) -> None:
    """Two of three elements have ended, the third goes on."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        events = list(read_events(workspace / "work/journal.jsonl"))
        if sum(event["event"] == "job_done" for event in events) == 3:
            return
        time.sleep(0.05)
    raise AssertionError("the elements did not begin")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_ended_from_outside(workspace: Path, signum: int) -> None:
    process = driver(workspace, "60")
    try:
        wait_until_waiting(workspace)
        began = time.monotonic()
        os.kill(process.pid, signum)
        if signum == signal.SIGTERM:
            status = {}
            while status.get("state") != "interrupted" and time.monotonic() < began + 3:
                status = json.loads((workspace / "work/status.json").read_text())
                time.sleep(0.02)
            assert (status["state"], status["exit"]) == ("interrupted", 143)
            assert process.wait(30) == 143
        else:
            process.wait(30)
    finally:
        process.kill()
    status = json.loads((workspace / "work/status.json").read_text())
    assert status["jobs"]["anonymous.each#1"] == "pending"
    (workspace / "runs.txt").write_text("")
    # Only what was not done is done. The list is the same but for how long the last one waits.
    again = driver(workspace, "60", "--resume")
    try:
        end = time.monotonic() + 60
        started: list[str] = []
        while len(started) < 5 and time.monotonic() < end:
            events = list(read_events(workspace / "work/journal.jsonl"))
            runs = [event for event in events if event["event"] == "run_started"]
            started = [
                f"{event['event']} {event['scope']}"
                for event in events[events.index(runs[-1]) :]
                if len(runs) == 2 and event["event"] in ("job_cached", "job_started")
            ]
            if len(started) == 4:
                break
            time.sleep(0.05)
        assert started == ["job_cached ", "job_cached 01-each.0", "job_cached 01-each.1", "job_started 01-each.2"]
    finally:
        again.kill()
        again.wait(30)
