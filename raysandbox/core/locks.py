"""Locks by name between processes: what several need is computed by one, while the others wait."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from raysandbox.core.disk import dispensable

__all__ = ["KeyLocks", "Lease"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_REMINDER_S = 60.0
_OLD_S = 3600.0  # after which the file of a lock that nobody holds is removed
_held = threading.local()  # `files`: lock files that this thread holds


def _nothing(text: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class KeyLocks:
    """Locks of keys in a folder, one file per key that is held.

    A lock is the operating system's (`flock`) and ends with the process that holds it, however that
    ends; only children that it forked without exec would go on holding it. Threads exclude each other
    as processes do, but a thread gets at once what it holds already. Several machines exclude each
    other where the folder's file system carries `flock` between them (NFS v4, Lustre or BeeGFS with
    `flock` on); otherwise each machine has locks of its own, and the same work may be done once on each.

    Keys are taken in sorted order, so that two that ask at once cannot wait for each other. Who holds
    some and asks for more must do so in one order everywhere: those of jobs before those of statistics
    and scores.

    Where no lock can be had (a folder that is read-only or full, a file system without `flock`) that is said once and
    the work goes on: locks spare work that is done twice, and nothing is wrong without them.

    Attributes:
        folder: where the files are.
    """

    folder: Path

    @contextlib.contextmanager
    def hold(self, keys: Iterable[str], on_wait: Callable[[str], None] = _nothing, label: str = "") -> Iterator[bool]:
        """Holds all keys while the block runs; yields whether it had to wait for one.

        Args:
            keys: any texts.
            on_wait: told what is waited for when that begins, and every minute after.
            label: what the holder does, for those that wait.
        """
        with self.lease(keys, on_wait, label) as lease:
            yield lease.waited

    def lease(self, keys: Iterable[str], on_wait: Callable[[str], None] = _nothing, label: str = "") -> Lease:
        """Like `hold`, for who gives some of the keys back before the block ends; entered by `with`."""
        return Lease(self, tuple(sorted(set(keys))), on_wait, label)

    def sweep(self, older_than_s: float = _OLD_S) -> None:
        """Removes the files of processes that were killed; those of held locks stay."""
        for path in list(self.folder.glob("*.lock")):
            with contextlib.suppress(OSError):  # its holder removed it just now, or nobody may
                if time.time() - path.stat().st_mtime > older_than_s:
                    opened: list[int] = []
                    if _try(path, opened):
                        _give_back(path, opened.pop())

    def file(self, key: str) -> Path:
        """The file of a key's lock."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.lock"


@dataclass
class Lease:
    """Keys that are held while a `with` block runs, or until they are given back.

    Attributes:
        waited: whether another one held a key when it was asked for.
    """

    locks: KeyLocks
    keys: tuple[str, ...]
    on_wait: Callable[[str], None]
    label: str
    waited: bool = False
    _descriptors: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Lease:
        """Takes all keys, and waits for those that others hold."""
        try:
            for key in self.keys:
                with dispensable("a lock", self.locks.file(key)):  # others may then do the same work once more
                    self._take(key)
            return self
        except BaseException:  # a signal while it waits
            self.give_back(self.keys)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give_back(self.keys)

    def give_back(self, keys: Iterable[str]) -> None:
        """Lets others have some of the keys."""
        for key in keys:
            if key in self._descriptors:
                path = self.locks.file(key)
                descriptor = self._descriptors[key]
                del self._descriptors[key]  # no call, which a signal could follow with the descriptor in nobody's hands
                try:
                    _mine().discard(path)
                finally:
                    _give_back(path, descriptor)

    def _take(self, key: str) -> None:
        path = self.locks.file(key)
        if path in _mine():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        pause, told = _FIRST_PAUSE_S, -_REMINDER_S
        started = time.monotonic()
        while not self._got(key, path):
            self.waited = True
            seconds = time.monotonic() - started
            if seconds - told >= _REMINDER_S:
                told = seconds
                self.on_wait(f"waiting for {_holder(path)}" + (f" ({seconds:.0f} s so far)" if seconds >= 1 else ""))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        descriptor = self._descriptors[key]
        about = {"pid": os.getpid(), "host": socket.gethostname(), "label": self.label}
        with contextlib.suppress(OSError):  # a full disk: the lock holds, and nobody is told who has it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(about).encode(), 0)

    def _got(self, key: str, path: Path) -> bool:
        """Takes a lock that is free; one that a signal's error would lose is closed, and thereby free again."""
        opened: list[int] = []
        try:
            if _try(path, opened):
                _mine().add(path)
                self._descriptors[key] = opened[-1]
                return True
        except BaseException:
            if key not in self._descriptors:  # else `give_back` has it
                _mine().discard(path)
                for descriptor in opened:
                    os.close(descriptor)
            raise
        return False


def _mine() -> set[Path]:
    if not hasattr(_held, "files"):
        _held.files = set()
    return _held.files


def _try(path: Path, opened: list[int]) -> bool:
    """Takes a lock unless another one holds it; the descriptor that holds it is then the only one in `opened`.

    It stands there from the start, so that a signal's error can leave no lock that nobody gives back.
    """
    while True:
        opened.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            fcntl.flock(opened[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it may have removed the file between our opening and locking it: then the lock
            # is of a file that nobody finds any more.
            if os.path.samestat(os.fstat(opened[-1]), os.stat(path)):
                return True
        except BlockingIOError:
            os.close(opened.pop())
            return False
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks
            os.close(opened.pop())
            raise
        os.close(opened.pop())


def _give_back(path: Path, descriptor: int) -> None:
    try:
        with contextlib.suppress(OSError):  # none there, or a disk that is read-only by now
            path.unlink()  # while it is held: after that it may be another one's
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # for children too that share the descriptor
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    """Who holds a lock, as its file says."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        who = f"process {about['pid']} on {about['host']}"
        return f"{about['label']} by {who}" if about["label"] else who
    except (OSError, ValueError, KeyError, TypeError):  # just taken or given back
        return "another process"
