"""What tests of workers that come and go share: their work, what they tell, drivers on raylets."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysandbox.core.progress import Progress
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.runtime.test_unit_workers import Job

ROOT = Path(__file__).parents[2]
FOREVER_S = 1000.0


def is_first(folder: Path) -> bool:
    """Whether this process is the first that asks."""
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class Work:
    """Answers with its process; strings say what else to do."""

    folder: Path
    load_error: str = ""
    meet: int = 2
    hang_in_load: bool = False  # of the first process

    def load(self, device):
        if self.hang_in_load and is_first(self.folder):
            time.sleep(FOREVER_S)
        if self.load_error:
            raise ValueError(self.load_error)
        (self.folder / f"loaded-{os.getpid()}").touch()

    def run(self, unit, state):
        mark = self.folder / f"{unit}-{os.getpid()}"
        if unit == "fail":
            mark.touch()
            raise ValueError("no such luck")
        if unit == "fail here":  # in the first process that has it, as long as there is another one
            while len(list(self.folder.glob("loaded-*"))) < 2:
                time.sleep(0.01)
            if not list(self.folder.glob("fail here-*")):
                mark.touch()
            if mark.exists():
                raise ValueError("no such luck here")
        self._wait(unit, mark)
        if unit == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    def _wait(self, unit, mark):
        if unit == "meet":  # in as many processes at once as there are such units
            mark.touch()
            while len(list(self.folder.glob("meet-*"))) < self.meet:
                time.sleep(0.01)
        if unit == "wait":
            while not (self.folder / "go").exists():
                time.sleep(0.01)
        if unit == "hang once" and not list(self.folder.glob("hang once-*")):
            mark.touch()
            time.sleep(FOREVER_S)
        if isinstance(unit, float):
            time.sleep(unit)


class Seen:
    """Collects the events and metrics of a map."""

    def __init__(self, folder, **resources):
        self.events, self.metrics = [], []
        self.workers = JobWorkers(
            Job(Resources(num_cpus=0.5, **resources)),
            folder / "logs" / "job.log",
            Progress(),
            lambda event, **fields: self.events.append((event, fields)),
            lambda metrics, step=None: self.metrics.append(metrics),
        )

    def of(self, event):
        return [fields for name, fields in self.events if name == event]


def groups_held():
    ray = pytest.importorskip("ray")
    return [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]


class Driver:
    """A driver's script on a cluster, and what it has told; it is ended with its block, whatever happens there."""

    def __init__(self, cluster, folder, *arguments, script="elastic_driver.py"):
        self._errors = folder / "driver.err"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name(script), str(folder), *map(str, arguments)],
                env={**cluster.environment, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.told = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.told.append(json.loads(line))

    def wait_for(self, event, **fields):
        end = time.monotonic() + 180
        while not any(fields.items() <= told.items() for told in self.of(event)):
            assert time.monotonic() < end, self.told[-5:]
            assert self.process.poll() is None or self._reader.is_alive(), self._errors.read_text()
            time.sleep(0.05)

    def of(self, event):
        return [told for told in list(self.told) if told["event"] == event]

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=60)
        self._reader.join(timeout=60)
        self.process.stdout.close()

    def end(self):
        assert self.process.wait(timeout=200) == 0, self._errors.read_text()
        self._reader.join(timeout=60)


def runs_in(folder):
    """How many units were done, those that were done again counted again."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("runs-*"))
