"""Calls that are given up."""

from __future__ import annotations

import threading
import time

import pytest

from raysandbox.sandbox import limited_calls
from raysandbox.sandbox.limited_calls import within


def test_results_and_errors_arrive() -> None:
    assert within(30, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(30, lambda: 1 // 0)


def test_a_thread_serves_again_also_after_a_call_that_ended_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_calls, "_idle", [])
    first = within(30, threading.get_ident)
    assert within(30, threading.get_ident) == first
    go = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.05 s"):
        within(0.05, lambda: go.wait(60))
    other = within(30, threading.get_ident)
    assert other != first  # that one still hangs
    go.set()
    end = time.monotonic() + 30
    while len(limited_calls._idle) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert {caller.ident for caller in limited_calls._idle} == {first, other}
