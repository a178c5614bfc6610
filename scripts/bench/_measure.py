"""Measures whole processes: wall time, CPU time and memory of a command and of all that it starts.

Looking costs little: /proc is listed ten times a second, and only the processes that descend from
this one are read, from files that the kernel answers without walking their pages.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
POLL_SECONDS = 0.1
GRACE_SECONDS = 10  # for processes that outlive the command
PR_SET_CHILD_SUBREAPER = 36
TICK = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1e6

# How the same recipe is run: ours on Ray and in one process, Data-Juicer's two executors.
CONTENDERS: dict[str, dict[str, Any]] = {
    "ray": {"engine": "ray"},
    "local": {"engine": "local"},
    "dj-ray": {"executor_type": "ray", "ray_address": "local"},
    "dj-default": {"executor_type": "default", "np": os.cpu_count(), "use_cache": False},
}


@dataclass(frozen=True)
class Measured:
    """One run of a command.

    Attributes:
        seconds: wall time from its start to its exit.
        cpu_seconds: user and system time of all processes.
        peak_mb: most memory of all processes together: what each holds alone, and what they share
            (Ray's object store) once; pages of files, such as libraries, are left out.
        driver_mb: most memory that the process itself held alone.
        rows: rows in the output.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    driver_mb: float
    rows: int


def adopt_orphans() -> None:
    """Makes orphans children of this process, so that what Ray leaves behind is measured and seen to end."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_recipe(name: str, recipe: Mapping[str, Any], data: Path, folder: Path) -> Measured:
    """Runs a recipe with one contender, caches off, and follows all of its processes.

    Args:
        name: of `CONTENDERS`.
        recipe: keys of the recipe besides the paths and the contender's own.
        data: input file.
        folder: where to work; the run's own folder in it is made anew.
    """
    work = folder / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    target = work / "out" / "kept.jsonl"
    file = work / "recipe.yaml"
    content = {"dataset_path": str(data), "export_path": str(target), **recipe, **CONTENDERS[name]}
    file.write_text(json.dumps(content))  # JSON is YAML
    if name.startswith("dj-"):
        command = [str(BIN / "dj-process"), "--config", str(file)]
    else:
        command = [sys.executable, "-m", "raysandbox", "process", str(file), "--no-cache"]
    seconds, watched = run_command(command, work)
    files = [target] if target.is_file() else sorted(target.rglob("*.json*"))
    rows = sum(1 for path in files for _ in path.open("rb"))
    return Measured(seconds, watched.cpu_seconds, watched.peak / MEGABYTE, watched.driver_peak / MEGABYTE, rows)


def run_command(command: Sequence[str], work: Path) -> tuple[float, Watched]:
    """Runs a command to its end; a status other than 0 ends the benchmark.

    Returns:
        wall seconds and what was seen of its processes.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    started = time.perf_counter()
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=work)
        watched = Watched(process.pid)
        while process.poll() is None:
            watched.look()
            time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - started
    watched.end_leftovers()
    if process.returncode:
        sys.exit(f"{command} ended with status {process.returncode}:\n{(work / 'log').read_text()[-3000:]}")
    return seconds, watched


@dataclass
class Watched:
    """A command's processes, as they are looked at while they live: Ray's raylet discards its workers' accounts.

    Attributes:
        pid: of the command itself.
        peak: most bytes of all processes.
        driver_peak: most bytes of the command itself.
    """

    pid: int
    peak: int = 0
    driver_peak: int = 0
    _cpu: dict[int, float] = field(default_factory=dict)
    _others: set[int] = field(default_factory=set)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of every process that was seen, up to the last look at it."""
        return sum(self._cpu.values())

    def look(self) -> set[int]:
        """Notes CPU time and memory of the processes that live; returns their ids."""
        alive = self._descendants()
        alone, shared = 0, 0
        for pid in alive:
            own, common = _memory_of(pid)
            alone += own
            shared = max(shared, common)
            if pid == self.pid:
                self.driver_peak = max(self.driver_peak, own)
        self.peak = max(self.peak, alone + shared)
        return alive

    def end_leftovers(self) -> None:
        """Waits for what the command left running; what stays longer is ended."""
        deadline = time.monotonic() + GRACE_SECONDS
        while left := self.look():
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if time.monotonic() > deadline:
                for pid in left:
                    os.kill(pid, 9)
            time.sleep(POLL_SECONDS)

    def _descendants(self) -> set[int]:
        """The processes below this one. A process that once had another ancestor is not looked at again."""
        parents: dict[int, int] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and (pid := int(entry.name)) not in self._others:
                try:
                    fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # ended meanwhile
                parents[pid] = int(fields[1])
                self._cpu[pid] = (int(fields[11]) + int(fields[12])) / TICK
        found = {os.getpid()}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        found.remove(os.getpid())
        for pid in parents.keys() - found:
            self._others.add(pid)
            del self._cpu[pid]
        return found


def _memory_of(pid: int) -> tuple[int, int]:
    """Bytes of a process that are its own, and bytes of shared memory that it uses."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    values = dict(line.split(":", 1) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    own, shared = (int(values.get(name, "0 kB").split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))
    return own, shared


def median(runs: Sequence[Measured], key: str) -> float:
    """Median of one figure."""
    return statistics.median(getattr(run, key) for run in runs)
