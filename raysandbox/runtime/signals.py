"""Signals and time limits that end blocking work.

The handlers raise KeyboardInterrupt, because that is the one exception that Ray's blocking calls
let through from a signal handler (any other becomes a SystemError), and because `except Exception`
in somebody's library does not swallow it. It becomes the error that is meant where it leaves the
`with` block. Signals reach the main thread only; time limits also hold in the threads that
`runtime.interrupts` can interrupt.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from raysandbox.core.errors import JobTimeout, RunInterrupted
from raysandbox.runtime.interrupts import ThreadLimit, being_stopped, limited

__all__ = ["deadline", "interruptible"]

_AGAIN_S = 10.0  # an exception raised inside a destructor is lost: then raise it again
_SOON_S = 0.001  # a timer of 0 would never ring
_told: list[Callable[[int], None]] = []  # `on_signal` of the blocks that the main thread is in, outermost first


@contextlib.contextmanager
def interruptible(on_signal: Callable[[int], None] | None = None) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into `RunInterrupted` where they leave the block.

    Must be entered after `ray.init()`, which installs handlers of its own. Inside the block the
    signal appears as KeyboardInterrupt. A second SIGINT ends the process as if there were no
    handler. Outside the main thread, where Python has no signals, nothing happens.

    Args:
        on_signal: called in the handler with the first signal, before anything is ended: what must be on
            the disk soon (Ray's job server kills 3 s after its SIGTERM). An OSError of it is passed over.
            Those of the blocks around this one are called too, after it.

    Raises:
        RunInterrupted: a signal arrived.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not arrived:
            arrived.append(signum)
            for told in dict.fromkeys(reversed(_told)):  # once, where a block is entered again within itself
                with contextlib.suppress(OSError):
                    told(signum)
            raise KeyboardInterrupt

    count = len(_told)
    _told.extend([on_signal] if on_signal is not None else [])
    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException as error:
        if arrived:
            raise RunInterrupted(arrived[0]) from error
        raise
    else:
        if arrived:
            raise RunInterrupted(arrived[0])
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        del _told[count:]


@dataclass(eq=False)
class _Limit(ThreadLimit):
    """A deadline.

    Attributes:
        end: when it is, by the monotonic clock.
    """

    end: float = 0.0


_limits: list[_Limit] = []  # outermost first


@contextlib.contextmanager
def deadline(seconds: float | None, what: str = "the work") -> Iterator[None]:
    """Ends the block when its time is over; blocks may be nested.

    Args:
        seconds: time limit; None for none.
        what: the message's subject.

    Raises:
        JobTimeout: the time is over. Inside the block it appears as KeyboardInterrupt.
        RuntimeError: called from a thread that cannot be interrupted.
    """
    if seconds is None:
        yield
        return
    limit = _Limit(end=time.monotonic() + seconds)
    in_main = threading.current_thread() is threading.main_thread()
    message = f"{what} ran past its limit of {seconds:g} s"
    try:
        with _alarm(limit) if in_main else limited(seconds, limit):
            yield
    except BaseException as error:
        limit.closed = True
        if limit.over and not being_stopped():
            raise JobTimeout(message) from error
        raise
    if limit.over:
        raise JobTimeout(message)


@contextlib.contextmanager
def _alarm(limit: _Limit) -> Iterator[None]:
    """Sets the alarm for a limit beside those that hold; afterwards the timer is as it was."""
    began = time.monotonic()
    outer_seconds, _ = signal.getitimer(signal.ITIMER_REAL)
    outer_handler = signal.signal(signal.SIGALRM, _ring)
    _limits.append(limit)
    _set_timer()
    try:
        yield
    finally:
        _limits.remove(limit)
        signal.signal(signal.SIGALRM, outer_handler)
        if _limits:
            _set_timer()
        else:
            left = outer_seconds - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left, _SOON_S) if outer_seconds else 0)


def _ring(signum: int, frame: FrameType | None) -> None:
    over = next((limit for limit in _limits if time.monotonic() >= limit.end), None)
    if over is not None:
        over.over = True
    _set_timer()
    if over is not None:
        raise KeyboardInterrupt


def _set_timer() -> None:
    waits = [_AGAIN_S if limit.over else limit.end - time.monotonic() for limit in _limits]
    signal.setitimer(signal.ITIMER_REAL, max(min(waits), _SOON_S))
