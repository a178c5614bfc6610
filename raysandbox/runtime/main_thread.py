"""Calls that must be made in the main thread: Ray ends with the thread that started it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

__all__ = ["MainCall", "in_main_thread", "serving"]

_POLL_S = 0.2
_T = TypeVar("_T")


class MainCall:
    """A call that another thread waits for."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._done = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def make(self) -> None:
        """Makes the call; what it raises is raised where it is waited for."""
        try:
            self._value = self._function()
        except Exception as error:  # noqa: BLE001  # whoever waits gets it
            self._error = error
        except BaseException as error:  # a signal ends the main thread; whoever waits must not take None for a result
            self._error = error
            raise
        finally:
            self._done.set()

    def result(self) -> Any:
        """Waits for the call, in a way that can be interrupted."""
        while not self._done.wait(_POLL_S):  # waits: the main thread serves calls as long as its threads work
            pass
        if self._error is not None:
            raise self._error
        return self._value


_post: Callable[[MainCall], object] | None = None


def in_main_thread(function: Callable[[], _T]) -> _T:
    """The result of a function, called in the main thread where that serves calls, else here."""
    post = _post
    if post is None or threading.current_thread() is threading.main_thread():
        return function()
    call = MainCall(function)
    post(call)
    return call.result()  # waits: the main thread serves calls as long as it has threads that make any


@contextlib.contextmanager
def serving(post: Callable[[MainCall], object]) -> Iterator[None]:
    """Sends calls of other threads to the main one while the block runs.

    Args:
        post: hands a call to the main thread, which makes it soon.
    """
    global _post
    _post = post
    try:
        yield
    finally:
        _post = None
