"""Waiting for Ray in a way that can be interrupted in any thread, and that is not silent."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["Patience", "result_of"]

_POLL_S = 0.5
_TELL_S = 60.0  # between two words about what is waited for


class Patience:
    """How long a wait is borne.

    Args:
        timeout_s: after how many seconds it is over.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.begin()

    def begin(self) -> None:
        """There is nothing to wait for, or the wait begins anew."""
        self._began = self._told = time.monotonic()

    @property
    def waited(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def over(self) -> bool:
        """Whether it has been too long."""
        return self.waited > self.timeout_s

    def tells(self) -> bool:
        """Whether it is time to say what is waited for: once a minute."""
        if time.monotonic() < self._told + _TELL_S:
            return False
        self._told = time.monotonic()
        return True


def result_of(reference: Any, timeout_s: float) -> Any:
    """What a call returned: as `ray.get`, which hears of signals in the main thread only.

    Raises:
        GetTimeoutError: it did not end in time.
        RayError: what it raised.
    """
    import ray

    end = time.monotonic() + timeout_s
    while not ray.wait([reference], timeout=max(0.0, min(_POLL_S, end - time.monotonic())))[0]:
        if time.monotonic() >= end:
            break
    return ray.get(reference, timeout=0)  # the caller says what its GetTimeoutError means
