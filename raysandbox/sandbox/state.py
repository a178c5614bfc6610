"""The folder of a run: its lock, its status, and earlier states of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from raysandbox.core.disk import dispensable
from raysandbox.core.errors import ConfigError, Problem, WorkDirBusyError
from raysandbox.core.files import atomic_write
from raysandbox.core.redact import redact_text
from raysandbox.sandbox.trials import TRIALS_FOLDER

__all__ = ["JobState", "RunFolder", "Status", "give_room", "is_other_run", "own_files", "set_aside"]

State = Literal["running", "done", "failed", "config_error", "interrupted"]
JobState = Literal["done", "cached", "failed", "pending"]

# What a run leaves besides the outputs that its configuration names.
_OWN = (
    "status.json",
    "config.yaml",
    "context_infos.json",
    "journal.jsonl",
    "metrics.jsonl",
    "metrics.wandb.json",
    "logs",
    "artifacts",
    "quarantine",
    "report.md",
    "report.html",
    "trials.csv",
    "best_config.yaml",
    "wandb",
)
_PARAMS = "params.json"  # of a trial: by which parameters its values were made
_PREVIOUS = "previous"
_LOCK = ".lock"
_ROOM_BYTES = 64 << 10  # that the lock of a live run keeps for its last words on a disk that is full


@dataclass
class Status:
    """`status.json`: the state of a run, replaced atomically at every change.

    Attributes:
        path: the file.
        jobs: job id → state.
    """

    path: Path
    jobs: dict[str, JobState] = field(default_factory=dict)
    state: State = "running"
    exit: int | None = None
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def begin(self, jobs: Iterable[str]) -> None:
        """Notes the jobs that will run."""
        self.jobs = dict.fromkeys(jobs, "pending")
        self._save()

    def job(self, job: str, state: JobState) -> None:
        """Notes the state of a job."""
        self.jobs[job] = state
        self._save()

    def end(self, state: State, exit_status: int, error: str | None = None) -> None:
        """Notes how the run ended."""
        self.state, self.exit = state, exit_status
        self.error = None if error is None else redact_text(error)
        self._save(ended=time.time())

    def _save(self, ended: float | None = None) -> None:
        content = {
            "state": self.state,
            "exit": self.exit,
            "pid": os.getpid(),
            "started": self.started,
            "ended": ended,
            "jobs": self.jobs,
            "error": self.error,
            "notes": [redact_text(note) for note in self.notes],
        }
        atomic_write(self.path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


class RunFolder:
    """A work_dir held by this process; a second run on it is refused.

    The lock is the operating system's: it ends with the process, however that ends.
    """

    def __init__(self, work_dir: Path) -> None:
        self.path = work_dir
        self._lock: IO[str] | None = None

    def __enter__(self) -> RunFolder:
        """Takes the lock.

        Raises:
            WorkDirBusyError: another live process holds it; the message gives its pid.
            ConfigError: the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / _LOCK).open("a+")
        except OSError as error:
            raise _unusable(self.path, error) from error
        # A file system without locks: nothing keeps a second run out, and that is said.
        with dispensable("the lock of a work_dir", self.path):
            self._take(lock)
        lock.truncate(0)
        try:
            os.write(lock.fileno(), str(os.getpid()).encode())
        except OSError as error:
            lock.close()
            raise _unusable(self.path, error) from error
        with contextlib.suppress(OSError):  # a disk with less room than that: the run will see for itself
            os.write(lock.fileno(), b" " * _ROOM_BYTES)
        self._lock = lock
        return self

    def _take(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            lock.close()
            message = (
                f"work_dir {self.path} is in use by the run with pid {pid}; wait for it, end it, or choose another"
            )
            raise WorkDirBusyError(message) from error

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            give_room(self.path)
            self._lock.close()
            self._lock = None


def give_room(work_dir: Path) -> None:
    """Frees the room that this process's lock of a work_dir keeps, for `status.json` to say how the run ended."""
    with contextlib.suppress(OSError):
        os.truncate(work_dir / _LOCK, len(str(os.getpid())))


def _unusable(work_dir: Path, error: OSError) -> ConfigError:
    reason = f"{work_dir}: {error.strerror}"
    return ConfigError([Problem(None, None, "work_dir", reason, "make room there, or choose another")])


def is_other_run(folder: Path) -> bool:
    """Whether a folder below a work_dir is that of another run: it has a lock of its own, and is none of its trials."""
    return folder.parent.name != TRIALS_FOLDER and (folder / _LOCK).exists()


def own_files(work_dir: Path) -> list[str]:
    """What in a work_dir belongs to the run itself, not to one of its jobs."""
    return [os.path.abspath(work_dir / name) for name in (*_OWN, _PARAMS, _PREVIOUS, _LOCK)]


def set_aside(work_dir: Path) -> Path | None:
    """Moves the state of an earlier run to `previous/N`; outputs that a configuration names stay.

    A `status.json` alone, left by a configuration that was refused, is no state worth keeping.
    """
    own = [work_dir / name for name in _OWN if (work_dir / name).exists()]
    own += [path for path in (work_dir / TRIALS_FOLDER, *work_dir.glob("iter_*")) if path.exists()]
    if not own or [path.name for path in own] == ["status.json"]:
        return None
    numbers = [int(path.name) for path in (work_dir / _PREVIOUS).glob("*") if path.name.isdigit()]
    target = work_dir / _PREVIOUS / str(max(numbers, default=0) + 1)
    target.mkdir(parents=True)
    for path in own:
        os.replace(path, target / path.name)
    return target
