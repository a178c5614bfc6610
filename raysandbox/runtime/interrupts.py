"""Threads that can be interrupted: KeyboardInterrupt appears in them as a signal's does in the main thread.

Python delivers such an exception between two bytecodes, so that a wait inside a C function ends first:
whatever waits in such a thread polls. While a thread is importing, logging or taking or giving back a lock it is left
alone, since an exception there could leave a lock held or a module half loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["ThreadLimit", "WorkThread", "being_stopped", "limited"]

_AGAIN_S = 10.0  # an exception raised inside a destructor is lost: then raise it again
_BUSY_S = 0.02
_BUSY_MOST_S = 5.0  # an import may take longer: then it is interrupted all the same
_DEPTH = 12  # frames that are looked at
_LOGGING, _IMPORTING = "logging/__init__.py", "<frozen importlib"
_LOCKING = ("__enter__", "__exit__", "acquire", "release")  # of a lock, by Python's own code
_local = threading.local()  # `target`: this thread's


class _Target:
    """A thread that may be interrupted while its block runs.

    Attributes:
        wanted: whether all of its work is to end, not only one block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ident: int | None = None
        self.wanted = False

    def open(self) -> None:
        """The calling thread may be interrupted from now on."""
        self._ident = threading.get_ident()

    def close(self) -> None:
        """No interruption after this; one that is on its way is dropped."""
        while self._ident is not None:
            with contextlib.suppress(KeyboardInterrupt), self._lock:
                ident, self._ident = self._ident, None
                _raise_in(ident, None)

    def interrupt(self, holds: Callable[[], bool], *, for_good: bool) -> bool:
        """Raises KeyboardInterrupt in the thread, unless it is over or `holds` says no; returns whether it did."""
        end = time.monotonic() + _BUSY_MOST_S
        while True:
            with self._lock:
                if self._ident is None or not holds():
                    return False
                self.wanted |= for_good
                if time.monotonic() > end or not _is_delicate(self._ident):
                    _raise_in(self._ident, KeyboardInterrupt)
                    return True
            time.sleep(_BUSY_S)

    def leave(self, limit: ThreadLimit) -> None:
        """Ends one of the thread's limits: what it has raised and has not arrived yet is dropped."""
        with self._lock:
            limit.closed = True
            if self._ident is not None and not self.wanted:
                _raise_in(self._ident, None)


def being_stopped() -> bool:
    """Whether the calling thread is a `WorkThread` that was told to end."""
    target: _Target | None = getattr(_local, "target", None)
    return target is not None and target.wanted


@dataclass(eq=False)
class ThreadLimit:
    """A time limit of a thread.

    Attributes:
        over: whether its time is over; it says so before it interrupts.
        closed: whether it interrupts no more.
    """

    over: bool = False
    closed: bool = False


@contextlib.contextmanager
def limited(seconds: float, limit: ThreadLimit) -> Iterator[None]:
    """Interrupts the calling thread, a `WorkThread`, when a time is over, and again every ten seconds.

    An interruption may arrive anywhere, here too: whoever gets one closes the limit by itself.

    Args:
        seconds: the time.
        limit: says how it stands.

    Raises:
        RuntimeError: the thread cannot be interrupted.
    """
    target: _Target | None = getattr(_local, "target", None)
    if target is None:
        raise RuntimeError("deadline() works in the main thread and in WorkThreads only")
    ended = threading.Event()

    def still() -> bool:
        limit.over |= not limit.closed
        return not limit.closed

    def watch() -> None:
        wait = seconds
        while not ended.wait(wait) and not limit.closed:  # waits: until the block ends, which closes the limit
            target.interrupt(still, for_good=False)
            wait = _AGAIN_S

    try:
        threading.Thread(target=watch, name="time limit", daemon=True).start()
        yield
    finally:
        while not limit.closed:
            with contextlib.suppress(KeyboardInterrupt):
                target.leave(limit)
                ended.set()
        if target.wanted:
            raise KeyboardInterrupt


class WorkThread:
    """Does a piece of work in a thread of its own, and tells when it ended.

    A daemon: one that does not end keeps no process alive.

    Args:
        work: what to do.
        on_end: called in the thread when it ended.
        name: of the thread.
    """

    def __init__(self, work: Callable[[], Any], on_end: Callable[[WorkThread], None], name: str) -> None:
        self._work, self._on_end = work, on_end
        self._target = _Target()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.value: Any = None
        self.error: BaseException | None = KeyboardInterrupt()  # until it has ended well

    @property
    def ended(self) -> bool:
        """Whether the thread is no more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupts the work until it ends; returns at once."""
        if not self._stopping:
            self._stopping = True
            threading.Thread(target=self._interrupt, name="interruption", daemon=True).start()

    def _interrupt(self) -> None:
        # waits: until the work has ended, as a daemon
        while self._target.interrupt(lambda: True, for_good=True):
            self._thread.join(_AGAIN_S)  # waits: a moment, then it is interrupted again

    def _run(self) -> None:
        _local.target = self._target
        try:
            self._target.open()
            if self._stopping:
                raise KeyboardInterrupt
            self.value, self.error = self._work(), None
        except BaseException as error:  # noqa: BLE001  # who started it looks at it
            self.error = error
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                self._target.close()
                break
        self._on_end(self)


def _is_delicate(ident: int) -> bool:
    """Whether a thread is where an exception would do harm."""
    frame: FrameType | None = sys._current_frames().get(ident)
    if frame is not None and frame.f_code.co_name in _LOCKING and frame.f_code.co_filename == threading.__file__:
        return True  # the lock may be taken, and nobody would give it back
    for _ in range(_DEPTH):
        if frame is None:
            return False
        name = frame.f_code.co_filename
        if name.endswith(_LOGGING) or name.startswith(_IMPORTING):
            return True
        frame = frame.f_back
    return False


def _raise_in(ident: int, error: type[BaseException] | None) -> None:
    """Sets the exception that a thread raises next, or takes away one that is on its way."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error) if error else None)
