"""What a search does about processes that die, and with a state that a kill has damaged."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from raysandbox.api import run
from raysandbox.core.errors import JobFailed, WriteFailed
from raysandbox.core.events import read_events
from raysandbox.hpo import recorder
from raysandbox.sandbox.trials import TrialRecord, read_trials
from tests.hpo.tiny_searches import ROWS, filtering, training

pytestmark = pytest.mark.usefixtures("cluster", "texts")

WORK = Path("outputs/search")
LENGTH = "text_length_filter.min_len"
FLOOR = "anonymous.train.extra_configs.floor"
FILTERED: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "process.rows_out", "goal": "minimize"},
    "parameters": {LENGTH: {"values": [5, 10, 20]}},
}
TRAINED: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "train.loss", "goal": "minimize"},
    "parameters": {FLOOR: {"values": [0.0]}},
}


def trials() -> list[TrialRecord]:
    return read_trials(WORK / "journal.jsonl")


def ended() -> list[int]:
    return [event["number"] for event in read_events(WORK / "journal.jsonl") if event["event"] == "trial_ended"]


def test_a_damaged_state_is_gone_on_from(workspace: Path) -> None:
    config = filtering(workspace, FILTERED)
    run(config)
    journal = WORK / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if '"trial_ended"' in line)
    kept = json.loads(lines[last])["number"]
    journal.write_text("".join(lines[:last]) + lines[last][:20])  # torn
    for path in (WORK / "artifacts/tune").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for name in ("status.json", "artifacts/search/search.json"):
        (WORK / name).write_bytes(b"")
    run(config, resume=True)
    assert sorted(ended()) == [0, 1, 2]
    assert {r.params[LENGTH]: r.value for r in trials()} == {n: ROWS - n + 1 for n in (5, 10, 20)}
    assert [r.attempts for r in trials()] == [2 if r.number == kept else 1 for r in trials()]
    # nothing is left to do, and more trials may be asked for
    best = (WORK / "best_config.yaml").read_bytes()
    run(config, resume=True)
    status = json.loads((WORK / "status.json").read_text())
    assert status["jobs"] == {f"trials/{number:04d}": "done" for number in range(3)}
    assert sorted(ended()) == [0, 1, 2]
    assert (WORK / "best_config.yaml").read_bytes() == best


def test_more_trials_and_failed_ones_again(workspace: Path) -> None:
    hpo = {
        "method": "random",
        "metric": TRAINED["metric"],
        "parameters": {"anonymous.train.extra_configs.fail_at": {"values": [None, 2]}},
        "points_to_evaluate": [{"anonymous.train.extra_configs.fail_at": value} for value in (2, None, None)],
        "run_cap": 2,
    }
    config = training(workspace, hpo, steps=3)
    run(config)
    run(config, ["hpo_config.run_cap=3"], resume=True)
    assert ended() == [0, 1, 2] or ended() == [1, 0, 2]
    run(config, ["hpo_config.run_cap=3", "hpo_config.rerun_failed=true"], resume=True)
    assert ended()[3:] == [0]
    assert [(record.state, record.attempts) for record in trials()] == [("failed", 2), ("done", 1), ("done", 1)]


def kill_when_training(
    times: int, stop: threading.Event, name: Callable[[Mapping[str, Any]], bool] | None = None
) -> None:
    """Kills the process that runs trial 0 each time its training has reported something new."""
    killed: set[int] = set()
    while len(killed) < times and not stop.is_set():
        time.sleep(0.02)
        try:
            pid = json.loads((WORK / "trials/0000/status.json").read_text())["pid"]
        except (OSError, ValueError):
            continue
        started = sum(event["event"] == "job_started" for event in read_events(WORK / "trials/0000/journal.jsonl"))
        if pid not in killed and pid != os.getpid() and started > len(killed) and psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)


@pytest.mark.parametrize(("times", "state"), [(1, "done"), (4, "failed")])
def test_a_trial_whose_process_is_killed(workspace: Path, times: int, state: str) -> None:
    config = training(
        workspace,
        TRAINED | {"parameters": {FLOOR: {"values": [0.0, 1.0]}}, "max_concurrent": 1},
        steps=8,
        seconds_per_step=0.1,
    )
    stop = threading.Event()
    killer = threading.Thread(target=kill_when_training, args=(times, stop))
    killer.start()
    try:
        run(config)
    finally:
        stop.set()
        killer.join()
    found = trials()
    assert [record.state for record in found] == [state, "done"]
    assert "its process died" in found[0].reason
    assert sorted(ended()) == [0, 1]
    if state == "done":
        assert found[0].value == pytest.approx(found[1].value - 1.0)  # pyright: ignore[reportOptionalOperand]
        assert len(found[0].history) == 8


def test_more_than_the_cluster_has_is_refused(workspace: Path) -> None:
    with pytest.raises(JobFailed, match=r"resources_per_trial asks for more than there is: \(99 CPU\)"):
        run(training(workspace, TRAINED | {"resources_per_trial": {"CPU": 99}}))
    assert json.loads((WORK / "status.json").read_text())["exit"] == 1


def test_less_than_a_job_needs_fails_it(workspace: Path) -> None:
    config = training(workspace, TRAINED | {"resources_per_trial": {"CPU": 1}}, {"num_cpus": 2})
    with pytest.raises(JobFailed, match="do not fit into what the trial holds"):
        run(config)


def test_a_trial_for_which_the_disk_is_full_is_run_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"anonymous.train.extra_configs.fail_at": {"values": [2, None]}}
    config = training(workspace, TRAINED | {"parameters": parameters, "max_concurrent": 1}, steps=3)

    def refusal(error: Exception, target: Path) -> WriteFailed:
        return WriteFailed(errno.ENOSPC, "No space left on device (make room)", str(target))

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "write_failure", refusal)
        with pytest.raises(WriteFailed, match="No space left on device"):
            run(config)
    assert trials()[0].state == "running"
    assert json.loads((WORK / "status.json").read_text())["state"] == "failed"
    run(config, resume=True)
    assert [record.state for record in trials()] == ["failed", "done"]
    assert trials()[0].attempts == 2
