"""Calls that may hang for ever, in threads that are left behind when they do.

The threads stay for the next call: fsspec keeps a connection for each thread, and making one takes long.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["within"]

T = TypeVar("T")


class _Caller(threading.Thread):
    """Makes one call after the other; idle again when one has ended, however late."""

    def __init__(self) -> None:
        super().__init__(name="storage-call", daemon=True)
        self.inbox: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]]] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            call, answer = self.inbox.get()  # waits: for the next call, as a daemon
            try:
                made = call(), None
            except BaseException as error:  # noqa: BLE001 — raised where the result is waited for
                made = None, error
            _idle.append(self)
            answer.put(made)
            del call, answer, made  # nothing is kept alive until the next call


_idle: list[_Caller] = []


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call that is made in another thread.

    Args:
        seconds: how long it is waited for.
        call: what to call; one that does not end goes on in its thread, a daemon.

    Raises:
        TimeoutError: it did not end in time.
        BaseException: what it raised.
    """
    try:
        caller = _idle.pop()
    except IndexError:
        caller = _Caller()
    answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    caller.inbox.put((call, answer))  # waits: never, its queue has no bound
    try:
        result, error = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if error is not None:
        raise error
    return result
