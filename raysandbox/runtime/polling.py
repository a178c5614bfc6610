"""Waiting for Ray in a way that can be interrupted in any thread."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["result_of"]

_POLL_S = 0.5


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
