"""The lock of a run's folder in an object store: an object that its holder renews.

It replaces `flock`, which no store has. Stores that refuse to make an object twice (S3 and Google's)
let exactly one run in; elsewhere two that start within a second may both believe that they hold it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from raysandbox.core.errors import JobFailed, WorkDirBusyError
from raysandbox.sandbox.storage import ObjectStore, StorageError

__all__ = ["LOCK", "PROBE", "StorageLock"]

LOCK = ".lock.json"
PROBE = ".probe-"
RENEW_S, STALE_S = 20.0, 120.0
_SETTLE_S = 1.0  # where the store excludes nobody: the later of two takers has written by then
_TAKEOVER = ".lock-takeover-"
_JOIN_S = 5.0  # for a renewal that is under way when the lock is given back

logger = logging.getLogger(__name__)


@dataclass
class StorageLock:
    """The lock of a folder in a store, held from `take` to `release`.

    Attributes:
        store: the folder.
        run: names the run for those that it keeps out.
        place: names the local folder of which only one live process can be the owner, and is: this one.
        on_lost: called in a thread, with the reason, when another run has taken the lock.
        lost: why the lock is not held any more, None while it is.
    """

    store: ObjectStore
    run: str
    place: str
    on_lost: Callable[[str], object] = lambda reason: None
    lost: str | None = None
    _token: str = field(default_factory=lambda: uuid.uuid4().hex)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def take(self) -> None:
        """Takes the lock and starts to renew it.

        Raises:
            WorkDirBusyError: another run holds it; the message names that.
            StorageError: the store does not answer.
        """
        if not self.store.create(LOCK, self._content()):
            self._take_over()
        if not self.store.excludes:
            time.sleep(_SETTLE_S)
            if self._holder().get("token") != self._token:
                raise WorkDirBusyError(self._busy(self._holder(), "just now"))
        self._thread = threading.Thread(target=self._renew, name="storage-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Gives the lock back; a store that does not answer lets it grow stale instead."""
        self._end.set()
        try:
            if self._thread is not None:
                self._thread.join(_JOIN_S)
                if self._thread.is_alive():  # it would write the lock again after it was removed
                    raise StorageError(f"{self.store.url} does not answer to its renewal")
            if self.lost is None and self._holder().get("token") == self._token:
                self.store.remove(LOCK)
        except StorageError as error:
            logger.warning("the lock of %s stays for %.0f s: %s", self.store.url, STALE_S, error)

    def check(self) -> None:
        """Does nothing while the lock is held.

        Raises:
            JobFailed: another run took it.
        """
        if self.lost is not None:
            raise JobFailed(self.lost)

    def _take_over(self) -> None:
        holder = self._holder()
        if not holder and self.store.create(LOCK, self._content()):
            return  # it was given back just now
        if holder.get("place") != self.place:  # else it was left by a process of this folder that is no more
            age = self._age(LOCK, holder)
            if holder and age <= STALE_S:
                raise WorkDirBusyError(self._busy(holder, f"seen {age:.0f} s ago"))
        claim = f"{_TAKEOVER}{holder.get('token', 'unknown')}"
        if not self.store.create(claim, self._content()):
            left = self.store.read(claim)
            if left is not None and self._age(claim, _parsed(left)) > STALE_S:
                self.store.remove(claim)  # whoever left it is dead: the next attempt has its chance
            raise self._being_taken()
        try:
            if self._holder() != holder:  # another one's takeover ended between our look at the lock and our claim
                raise self._being_taken()
            self.store.write(LOCK, self._content())
        finally:
            self.store.remove(claim)

    def _being_taken(self) -> WorkDirBusyError:
        return WorkDirBusyError(f"work_dir {self.store.url} is just being taken by another run; try again")

    def _age(self, name: str, content: dict[str, str | int | float]) -> float:
        """Seconds since an object of this kind was written, by the store's clock where it has one."""
        probe = f"{PROBE}{uuid.uuid4().hex}"
        self.store.write(probe, b"")
        try:
            age = self.store.age(name, probe)
        finally:
            self.store.remove(probe)
        return time.time() - float(content.get("time", 0.0)) if age is None else age

    def _holder(self) -> dict[str, str | int | float]:
        return _parsed(self.store.read(LOCK))

    def _busy(self, holder: dict[str, str | int | float], when: str) -> str:
        return (
            f"work_dir {self.store.url} is in use by run {holder.get('run')} (pid {holder.get('pid')} on "
            f"{holder.get('host')}, {when}); wait for it, end it, or choose another "
            f"(one that was killed is let go {STALE_S:.0f} s after it was last seen)"
        )

    def _content(self) -> bytes:
        about = {"run": self.run, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        return json.dumps({**about, "place": self.place, "token": self._token}).encode()

    def _renew(self) -> None:
        store = replace(self.store, abandoned=self._end)  # once the run has ended, nothing is tried again
        while not self._end.wait(RENEW_S):  # waits: as long as the run goes on
            try:
                holder = _parsed(store.read(LOCK))
                if holder and holder.get("token") != self._token:
                    self._lose(holder)
                    return
                store.write(LOCK, self._content())
            except StorageError as error:
                logger.warning("the lock cannot be renewed: %s", error)

    def _lose(self, holder: dict[str, str | int | float]) -> None:
        self.lost = (
            f"work_dir {self.store.url} was taken by run {holder.get('run')} (pid {holder.get('pid')} on "
            f"{holder.get('host')}) while this one could not renew its lock; nothing more is written there"
        )
        if not self._end.is_set():
            self.on_lost(self.lost)


def _parsed(content: bytes | None) -> dict[str, str | int | float]:
    """What a lock says; nothing where there is none, or a torn one, which is of nobody."""
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
