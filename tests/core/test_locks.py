"""Locks by name: between threads, between processes, and after a holder was killed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import pytest

import raysandbox.core.locks as locks_module
from raysandbox.core.locks import KeyLocks

TraceFunction: TypeAlias = Callable[[FrameType, str, object], object]

_HOLDER = """
import sys, time
from pathlib import Path
from raysandbox.core.locks import KeyLocks
with KeyLocks(Path(sys.argv[1])).hold(sys.argv[2:], label="the work"):
    print("held", flush=True)
    sys.stdin.read()
"""
_COUNTER = """
import sys
from pathlib import Path
from raysandbox.core.locks import KeyLocks
folder = Path(sys.argv[1])
for _ in range(60):
    with KeyLocks(folder / "locks").hold(["b", "a"] if sys.argv[2] == "0" else ["a", "b"]):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""


@contextmanager
def _holder(folder: Path, *keys: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds keys until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder), *keys], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_free_key_is_had_at_once_and_leaves_no_file(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path / "locks")
    with locks.hold(["a/b", "ü", "a/b"]) as waited:
        assert not waited
        assert len(list(locks.folder.iterdir())) == 2
    assert list(locks.folder.iterdir()) == []


def test_processes_count_together_and_none_waits_for_ever(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", _COUNTER, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(index)]) for index in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "180"
    assert list((tmp_path / "locks").iterdir()) == []


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    locks, seen, waited = KeyLocks(tmp_path), list[int](), list[bool]()

    def work() -> None:
        with locks.hold(["key"]) as had_to_wait:
            waited.append(had_to_wait)
            seen.append(1)
            time.sleep(0.1)
            assert len(seen) == 1
            seen.clear()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(waited) == 3
    assert waited.count(False) == 1


def test_a_thread_gets_what_it_holds(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with locks.hold(["a", "b"]):
        with locks.hold(["b", "c"]) as waited:
            assert not waited
        assert locks.file("b").exists()
        assert not locks.file("c").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_one_who_waits_is_told_who_holds_it(tmp_path: Path) -> None:
    told: list[str] = []
    with _holder(tmp_path, "key") as holder:
        assert holder.stdin is not None
        threading.Timer(0.3, holder.stdin.close).start()
        with KeyLocks(tmp_path).hold(["key", "other"], told.append) as waited:
            assert waited
    assert len(told) == 1
    assert f"the work by process {holder.pid} on " in told[0]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with _holder(tmp_path, "key") as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert KeyLocks(tmp_path).file("key").exists()
        started = time.monotonic()
        with KeyLocks(tmp_path).hold(["key"]) as waited:
            assert not waited
    assert time.monotonic() - started < 5
    assert list(tmp_path.iterdir()) == []


def test_keys_can_be_given_back_one_by_one(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    with locks.lease(["a", "b"]) as lease:
        lease.give_back(["a", "not held"])
        assert not locks.file("a").exists()
        assert locks.file("b").exists()
        with _holder(tmp_path, "a"):
            pass


def test_a_signal_ends_the_wait_and_gives_back_what_was_taken(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with _holder(tmp_path, "b"):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt), locks.hold(["a", "b"]):
                pass
            assert not locks.file("a").exists()
            assert locks.file("b").exists()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_sweeping_removes_what_killed_processes_left(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    KeyLocks(tmp_path / "absent").sweep()
    locks.file("left").touch()
    with _holder(tmp_path, "held"):
        locks.sweep()
        assert locks.file("left").exists()
        locks.sweep(older_than_s=-1)
        assert not locks.file("left").exists()
        assert locks.file("held").exists()


def test_a_signal_at_any_line_leaves_no_lock_behind(tmp_path: Path) -> None:
    locks = KeyLocks(tmp_path)
    caught: list[BaseException] = []

    def interrupted(at: int) -> bool:
        """Whether taking two keys has a line number `at`, where the signal comes."""
        left = at

        def trace(frame: FrameType, event: str, _: object) -> TraceFunction | None:
            nonlocal left
            if frame.f_code.co_filename != locks_module.__file__:
                return None
            left -= event == "line"
            if left == 0:
                left = -1
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        lease = locks.lease(["a", "b"])
        sys.settrace(trace)
        try:
            lease.__enter__()
        except KeyboardInterrupt as error:
            sys.settrace(before)
            caught.append(error)  # as a job has it that is tried again: it holds the frames' variables
            for key in ("a", "b"):
                with locks.file(key).open("a") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            caught.clear()
            return True
        finally:
            sys.settrace(before)
        lease.__exit__(None, None, None)
        return False

    at = 1
    while interrupted(at):
        at += 1
    assert at > 20
