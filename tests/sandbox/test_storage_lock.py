"""The lock of a folder in a store: takeovers at the same time, renewals at the end."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid

import pytest

from raysandbox.core.errors import WorkDirBusyError
from raysandbox.sandbox import storage_lock
from raysandbox.sandbox.storage import ObjectStore
from raysandbox.sandbox.storage_lock import LOCK, STALE_S, StorageLock

CLAIM = ".lock-takeover-t"


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(f"memory://bucket-{uuid.uuid4().hex}/run1")


def left(store: ObjectStore, name: str = LOCK, **more: object) -> None:
    """Writes what a run that was killed leaves."""
    about = {"run": "dead", "host": "elsewhere", "pid": 77, "time": time.time(), "place": "p", "token": "t"}
    store.write(name, json.dumps({**about, **more}).encode())


def run_of(store: ObjectStore, name: str = LOCK) -> str:
    return json.loads(store.read(name) or b"{}")["run"]


def test_of_two_takeovers_at_the_same_time_one_succeeds(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    left(store)
    first, second = StorageLock(store, "first", "a"), StorageLock(store, "second", "b")
    ages: list[str] = []

    def age(self: ObjectStore, name: str, probe: str) -> float:
        ages.append(name)
        if len(ages) == 1:
            first.take()  # from its look to its end, after the second one has looked
        return STALE_S + 1

    monkeypatch.setattr(ObjectStore, "age", age)
    with pytest.raises(WorkDirBusyError, match="just being taken by another run"):
        second.take()
    assert run_of(store) == "first"
    assert set(store.sizes()) == {LOCK}
    first.release()
    assert not store.sizes()


def test_a_lock_that_is_renewed_after_all_is_not_taken(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    left(store)

    def age(self: ObjectStore, name: str, probe: str) -> float:
        left(store, time=time.time() + 1)
        return STALE_S + 1

    monkeypatch.setattr(ObjectStore, "age", age)
    with pytest.raises(WorkDirBusyError, match="just being taken"):
        StorageLock(store, "mine", "a").take()
    assert run_of(store) == "dead"


def test_a_claim_stands_while_its_owner_may_live(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    left(store)
    left(store, CLAIM, run="taking")
    ages = {LOCK: STALE_S + 1, CLAIM: 1.0}
    monkeypatch.setattr(ObjectStore, "age", lambda self, name, probe: ages[name])
    for _ in range(2):
        with pytest.raises(WorkDirBusyError, match="just being taken"):
            StorageLock(store, "mine", "a").take()
        assert run_of(store, CLAIM) == "taking"
    ages[CLAIM] = STALE_S + 1
    with pytest.raises(WorkDirBusyError, match="try again"):
        StorageLock(store, "mine", "a").take()
    lock = StorageLock(store, "mine", "a")
    lock.take()
    assert run_of(store) == "mine"
    lock.release()


@pytest.fixture
def renewing(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageLock, threading.Event]:
    """A lock whose renewal is under way, and what lets that end."""
    write, begun, go = ObjectStore.write, threading.Event(), threading.Event()

    def slow(self: ObjectStore, name: str, content: bytes) -> None:
        if name == LOCK:
            begun.set()
            go.wait(60)
        write(self, name, content)

    monkeypatch.setattr(ObjectStore, "write", slow)
    monkeypatch.setattr(storage_lock, "RENEW_S", 0.01)
    lock = StorageLock(store, "mine", "a")
    lock.take()
    assert begun.wait(30)
    return lock, go


def end_of(lock: StorageLock) -> None:
    assert lock._thread is not None
    lock._thread.join(30)
    assert not lock._thread.is_alive()


def test_a_renewal_under_way_does_not_bring_the_lock_back(
    store: ObjectStore, renewing: tuple[StorageLock, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, go = renewing
    monkeypatch.setattr(storage_lock, "_JOIN_S", 60.0, raising=False)
    threading.Timer(0.3, go.set).start()
    lock.release()
    end_of(lock)
    assert store.read(LOCK) is None


def test_a_renewal_that_hangs_leaves_the_lock_to_its_age(
    store: ObjectStore,
    renewing: tuple[StorageLock, threading.Event],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lock, go = renewing
    monkeypatch.setattr(storage_lock, "_JOIN_S", 0.05, raising=False)
    with caplog.at_level(logging.WARNING):
        lock.release()
    assert "stays for 120 s: " in caplog.text
    assert run_of(store) == "mine"
    go.set()
    end_of(lock)


def test_a_lost_lock_is_told_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_lock, "RENEW_S", 0.01)
    told: list[str] = []
    lock = StorageLock(store, "mine", "a", told.append)
    lock.take()
    end = time.monotonic() + 30
    while not told and time.monotonic() < end:
        left(store, run="other")  # again: a renewal may be under way
        time.sleep(0.05)
    end_of(lock)
    assert told == [lock.lost]
    assert "was taken by run other" in told[0]
    lock.release()
    assert run_of(store) == "other"
