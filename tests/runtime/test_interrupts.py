"""Threads that can be interrupted."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from raysandbox.core.errors import JobTimeout
from raysandbox.runtime.interrupts import WorkThread
from raysandbox.runtime.main_thread import MainCall
from raysandbox.runtime.signals import deadline, interruptible


def start(work: Callable[[], Any]) -> tuple[WorkThread, queue.SimpleQueue[WorkThread]]:
    ended: queue.SimpleQueue[WorkThread] = queue.SimpleQueue()
    thread = WorkThread(work, ended.put, "test")
    thread.start()
    return thread, ended


def test_a_value_and_an_error() -> None:
    thread, ended = start(lambda: 3)
    assert ended.get(timeout=10) is thread
    assert (thread.value, thread.error) == (3, None)

    def fail() -> None:
        raise ValueError("own")

    thread, ended = start(fail)
    ended.get(timeout=10)
    assert isinstance(thread.error, ValueError)


def test_work_that_waits_in_python_ends_when_it_is_stopped() -> None:
    cleaned = threading.Event()

    def work() -> None:
        try:
            while True:
                time.sleep(0.05)
        finally:
            cleaned.set()

    thread, ended = start(work)
    time.sleep(0.1)
    began = time.monotonic()
    thread.stop()
    ended.get(timeout=10)
    assert time.monotonic() - began < 2
    assert isinstance(thread.error, KeyboardInterrupt)
    assert cleaned.is_set()


def test_stopped_before_it_began() -> None:
    ended: queue.SimpleQueue[WorkThread] = queue.SimpleQueue()
    thread = WorkThread(lambda: time.sleep(60), ended.put, "test")
    thread.stop()
    thread.start()
    ended.get(timeout=10)
    assert isinstance(thread.error, KeyboardInterrupt)


def test_a_deadline_ends_only_its_own_thread() -> None:
    def late() -> None:
        with deadline(0.2, "the late one"):
            for _ in range(400):
                time.sleep(0.02)

    def other() -> str:
        for _ in range(30):
            time.sleep(0.02)
        return "done"

    slow, slow_ended = start(late)
    fine, fine_ended = start(other)
    slow_ended.get(timeout=10)
    fine_ended.get(timeout=10)
    assert isinstance(slow.error, JobTimeout)
    assert "the late one ran past its limit of 0.2 s" in str(slow.error)
    assert (fine.value, fine.error) == ("done", None)


def test_a_deadline_that_is_kept_leaves_nothing_behind() -> None:
    def work() -> int:
        for _ in range(200):
            with contextlib.suppress(JobTimeout), deadline(0.002):
                time.sleep(0.002)  # ends at about its limit
        time.sleep(0.1)
        return 1

    thread, ended = start(work)
    ended.get(timeout=60)
    assert (thread.value, thread.error) == (1, None)


def test_a_thread_can_go_on_after_a_deadline_and_is_stopped_later() -> None:
    tries: list[int] = []

    def work() -> None:
        while True:
            tries.append(1)
            with contextlib.suppress(JobTimeout), deadline(0.1):
                while True:
                    time.sleep(0.02)

    thread, ended = start(work)
    time.sleep(0.5)
    thread.stop()
    ended.get(timeout=10)
    assert isinstance(thread.error, KeyboardInterrupt)
    assert len(tries) > 1


def test_a_log_record_is_not_torn() -> None:
    """An exception between taking and giving back a handler's lock would block every other thread's records."""
    handler = logging.StreamHandler(_Slow())
    logger = logging.getLogger("test of interruptions")
    logger.addHandler(handler)
    logger.propagate = False
    try:

        def work() -> None:
            while True:
                logger.warning("x")
                time.sleep(0.001)

        thread, ended = start(work)
        time.sleep(0.1)
        thread.stop()
        ended.get(timeout=10)
        assert handler.lock is not None
        assert handler.lock.acquire(timeout=1)
        handler.lock.release()
    finally:
        logger.removeHandler(handler)


def test_a_lock_that_is_waited_for_is_given_back() -> None:
    condition = threading.Condition()
    waits = threading.Event()

    def work() -> None:
        waits.set()
        with condition:  # an exception in there, after the lock was taken, would leave it taken
            pass
        while True:
            time.sleep(0.02)

    with condition:
        thread, ended = start(work)
        assert waits.wait(10)
        time.sleep(0.1)
        thread.stop()
        time.sleep(0.2)
    ended.get(timeout=20)
    assert isinstance(thread.error, KeyboardInterrupt)
    assert condition.acquire(timeout=1)
    condition.release()


def test_who_waits_for_the_main_thread_gets_what_ended_it() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    call = MainCall(interrupted)
    with pytest.raises(KeyboardInterrupt):
        call.make()
    with pytest.raises(KeyboardInterrupt):
        call.result()


class _Slow:
    def write(self, text: str) -> None:
        time.sleep(0.01)

    def flush(self) -> None:
        """Nothing."""


def test_a_signal_is_told_before_anything_ends() -> None:
    import os
    import signal

    from raysandbox.core.errors import RunInterrupted

    order: list[object] = []

    def work() -> None:
        with interruptible(order.append):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            finally:
                order.append("ended")

    with pytest.raises(RunInterrupted):
        work()
    assert order == [signal.SIGTERM, "ended"]
