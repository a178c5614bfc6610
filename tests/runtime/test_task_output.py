"""What tasks of recipes print, in the log of their job."""

import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.core.scope import logging_to
from raysandbox.recipe.parts import InMemory, Unit, UnitReport
from raysandbox.recipe.ray_data import RayDataEngine
from raysandbox.runtime import task_output
from raysandbox.runtime.task_output import TaskOutput, caught


@dataclass(frozen=True)
class Talkative:
    """Prints, warns, and may end its process."""

    staging: Path
    deadly: bool = False
    resources: tuple = ()

    def run(self, unit):
        print("unit", unit.index)
        print("key canary-in-env", file=sys.stderr)
        warnings.warn("a library's warning", stacklevel=1)
        os.system("echo from a child")
        if self.deadly and unit.index == 1:
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return UnitReport(unit.index, [], [])


def units(count):
    return [Unit(number, InMemory([])) for number in range(count)]


def leftovers():
    return list(Path(task_output.tempfile.gettempdir()).glob("raysandbox-output-*"))


def test_output_of_tasks_is_in_the_log_of_their_job(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "canary-in-env")
    before, log = leftovers(), tmp_path / "logs" / "job.log"
    with logging_to(log):
        reports = list(RayDataEngine().run(Talkative(tmp_path), units(4)))
    assert [report.index for report in reports] == [0, 1, 2, 3]
    lines = log.read_text().splitlines()
    for number in range(4):
        assert sum(line.endswith(f"| unit {number}") for line in lines) == 1
    assert sum("key ***" in line for line in lines) == 4
    assert any("UserWarning: a library's warning" in line for line in lines)
    assert sum(line.endswith("| from a child") for line in lines) == 4
    assert all(" 127.0.0.1 pid " in line for line in lines)
    assert "canary" not in log.read_text()
    assert leftovers() == before


def test_the_last_words_of_a_worker_that_dies_are_in_the_error(cluster, tmp_path):
    log = tmp_path / "job.log"
    with logging_to(log), pytest.raises(JobFailed) as caught_error:
        list(RayDataEngine().run(Talkative(tmp_path, deadly=True), units(2)))
    message = str(caught_error.value)
    assert "unit 1" in message.splitlines()[0]
    assert f"last lines of {log}:" in message
    assert message.splitlines()[-1] == "last words"


def test_without_a_job_nothing_is_caught(cluster, tmp_path, capfd):
    with TaskOutput() as output:
        assert output.token == ""
        with caught(output.token):
            print("as ever")
    assert capfd.readouterr().out == "as ever\n"
