"""Units over workers: every unit once, lost workers replaced, failures named."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.progress import Progress
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers

pytestmark = pytest.mark.usefixtures("cluster")


@dataclass(frozen=True)
class Job:
    resources: Resources = field(default_factory=Resources)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    id: str = "anonymous.evaluate#0"


class Seen(Progress):
    def __init__(self):
        self.steps = []

    def begin(self, description, total=None, unit="rows"):
        self.steps.append((description, total))

    def advance(self, amount):
        self.steps.append(amount)

    def end(self):
        self.steps.append("end")


class OwnError(Exception):
    """Cannot be made again from its message, as those of other environments cannot."""

    def __init__(self, one, two):
        super().__init__("one of its own")


class OwnResult:
    def __reduce__(self):
        return (int, ("no number",))


def own_ways(unit):
    if unit == "own error":
        raise OwnError(1, 2)
    if unit == "leave":
        sys.exit(3)
    return OwnResult()


@dataclass(frozen=True)
class Square:
    """Squares numbers; strings say what else to do."""

    folder: Path
    fragile: bool = False
    together: int = 1  # workers that wait for each other before the first unit

    def load(self, device):
        (self.folder / f"loaded-{os.getpid()}").touch()
        print("loaded on", device)
        if self.fragile and len(list(self.folder.glob("loaded-*"))) <= 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def run(self, unit, state):
        print("unit", unit)
        while len(list(self.folder.glob("loaded-*"))) < self.together:
            time.sleep(0.01)
        if unit == "die once":
            mark = self.folder / "died"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "survived"
        if unit == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == "refuse":
            raise UserError("the video has no frames")
        if unit == "break":
            raise KeyError("x")
        if unit in ("own error", "own result", "leave"):
            return own_ways(unit)
        if unit == "gpu":
            time.sleep(0.5)
            return state
        return unit * unit


def workers(folder, progress=None, **resources):
    return JobWorkers(Job(Resources(**resources)), folder / "logs" / "job.log", progress or Progress())


def test_every_unit_once_and_models_once_per_worker(tmp_path):
    progress = Seen()
    work = Square(tmp_path, together=2)
    found = workers(tmp_path, progress, num_workers=2).map(work, list(range(9)), description="squares")
    assert sorted(found) == [(n, n * n) for n in range(9)]
    assert progress.steps == [("squares", 9), *[1] * 9, "end"]
    assert len(list(tmp_path.glob("loaded-*"))) == 2
    logs = [(tmp_path / "logs" / name).read_text() for name in ("job.log", "job.1.log")]
    assert all("loaded on cpu" in log for log in logs)
    lines = [line.split("| ")[-1] for log in logs for line in log.splitlines()]
    assert sorted(line for line in lines if line.startswith("unit")) == [f"unit {n}" for n in range(9)]


def test_nothing_to_do_starts_nothing(tmp_path):
    assert list(workers(tmp_path, num_workers=50).map(Square(tmp_path), [])) == []
    assert list(workers(tmp_path, num_workers=50).map(Square(tmp_path), [3])) == [(0, 9)]  # one is enough for one


def test_a_lost_worker_is_replaced_and_its_unit_done_again(tmp_path):
    units = [1, "die once", 2, 3]
    found = dict(workers(tmp_path, num_workers=1).map(Square(tmp_path), units))
    assert found == {0: 1, 1: "survived", 2: 4, 3: 9}
    assert len(list(tmp_path.glob("loaded-*"))) == 2


def test_workers_that_die_while_starting_are_counted_apart(tmp_path):
    found = workers(tmp_path, num_workers=3).map(Square(tmp_path, fragile=True), [1, 2, 3])
    assert dict(found) == {0: 1, 1: 4, 2: 9}


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("die", r"the worker died 3 times on unit 0: (?s:.*)unit die"),
        ("refuse", "the video has no frames"),
        ("break", r"KeyError: 'x'(?s:.*)last lines of"),
        ("leave", "ended its process with status 3"),
        ("own error", "OwnError: one of its own"),
        ("own result", "what the worker sent cannot be read here: .*no number"),
    ],
)
def test_failures_are_named(tmp_path, unit, message):
    with pytest.raises(JobFailed, match=message):
        list(workers(tmp_path).map(Square(tmp_path), [unit]))


def test_each_worker_has_its_gpu(tmp_path):
    found = dict(workers(tmp_path, num_workers=2, num_gpus=1).map(Square(tmp_path, together=2), ["gpu"] * 4))
    assert set(found.values()) == {"0", "1"}


def test_what_resources_leave_open(tmp_path):
    found = dict(workers(tmp_path).map(Square(tmp_path, together=2), ["gpu"] * 4, num_workers=2))
    assert set(found.values()) == {"0", "1"}  # a GPU each, since there are two
    assert dict(workers(tmp_path).map(Square(tmp_path), ["gpu"] * 3, num_workers=3)) == dict.fromkeys(range(3), "")
    assert dict(workers(tmp_path, num_gpus=0).map(Square(tmp_path), ["gpu"])) == {0: ""}


def test_an_absent_interpreter_is_refused(tmp_path):
    with pytest.raises(JobFailed, match="py_executable: /no/python does not exist"):
        list(workers(tmp_path).map(Square(tmp_path), [1], python="/no/python"))
