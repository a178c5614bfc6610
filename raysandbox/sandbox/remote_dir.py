"""A work_dir in an object store: the run works in a local mirror, and what it finishes is sent.

Sending goes on in a thread, so that a slow store holds up no job. A store that stops answering is
said once; the run goes on, and at the end everything is tried again for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raysandbox.config.load import parse_config
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, JobFailed, Problem, RunInterrupted, WorkDirBusyError
from raysandbox.core.files import atomic_write, cache_dir
from raysandbox.core.keys import DigestMemo, digest
from raysandbox.core.names import is_remote
from raysandbox.core.redact import redact_text
from raysandbox.runtime.signals import interruptible
from raysandbox.sandbox.mirror import Mirror
from raysandbox.sandbox.state import RunFolder
from raysandbox.sandbox.storage import ObjectStore, StorageError, url_problem
from raysandbox.sandbox.storage_lock import LOCK, PROBE, StorageLock
from raysandbox.sandbox.view import RunView

__all__ = ["hosted", "mirrored", "note_remote_refusal", "work_dir_problems"]

_INTERVAL_S = 2.0  # at least, between two looks at what has changed
_REST = 10.0  # times as long as a look took, before the next one
_TELL_S = 30.0  # between two notes on sending that takes long
_RUN_PATIENCE_S, _END_PATIENCE_S, _HURRY_S = 20.0, 120.0, 1.0
_HURRY_ANSWER_S = 10.0  # for one operation, when the process may be killed soon
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def work_dir_problems(config: SandboxConfig) -> list[Problem]:
    """What is wrong with a work_dir that is a URL, as far as it is known without a network."""
    found = url_problem(_url(config)) if _is_url(config) else None
    return [] if found is None else [config.document.problem(("work_dir",), *found)]


def mirrored(config: SandboxConfig) -> SandboxConfig:
    """The configuration of a run in a store as it is on this machine: every path below the URL in the mirror."""
    if not _is_url(config) or url_problem(_url(config)) is not None:
        return config
    places = {_url(config): str(_mirror_folder(config))}
    found, problems = parse_config(config.document.placed(places))
    if found is None:
        raise ConfigError(problems)
    return replace(found, allow_user_code=config.allow_user_code)


@contextlib.contextmanager
def hosted(config: SandboxConfig, *, resume: bool, view: RunView | None = None) -> Iterator[SandboxConfig]:
    """Holds a work_dir that is a URL while the block runs in its mirror; others are yielded as they are.

    Args:
        config: the configuration.
        resume: whether the block goes on with what stands in the store.
        view: told what cannot be used, and where everything is.

    Raises:
        ConfigError: the store cannot be written; nothing was started.
        WorkDirBusyError: another run holds it.
        JobFailed: the results could not be sent, or another run took the store; they stand in the mirror.
        RunInterrupted: a signal arrived.
    """
    if not _is_url(config):
        yield config
        return
    if problems := work_dir_problems(config):
        raise ConfigError(problems)
    resume = resume or config.settings.resume
    local, url, shown = mirrored(config), _url(config), view or RunView()
    folder = _mirror_folder(config)
    signals = _Signals(shown)
    with signals.heard(), _held(folder.parent, url):
        store = ObjectStore(url, _RUN_PATIENCE_S)
        _probe(config, store)
        name = f"{config.settings.experiment_name}-{uuid.uuid4().hex[:8]}"
        lock = StorageLock(store, name, _place(folder.parent), signals.lock_lost)
        try:
            lock.take()
        except StorageError as error:
            raise ConfigError([_unusable(config, error)]) from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mirror = Mirror(store, folder, DigestMemo(cache_dir(local.settings.cache_dir) / "digests"))
            _prepare(mirror, resume, shown, config)
            with _Sender(mirror, lock, shown, signals.inbox).running():
                yield local
            shown.note(f"the run is in {url} (and in its mirror here, {folder})")
        finally:
            lock.release()


def note_remote_refusal(config: SandboxConfig, error: ConfigError) -> bool:
    """Says in `status.json` of a work_dir in a store that its configuration was refused.

    Returns:
        whether the work_dir is in a store.
    """
    if not _is_url(config):
        return False
    store = ObjectStore(_url(config), _HURRY_S, _HURRY_ANSWER_S)
    content = {"state": "config_error", "exit": 2, "pid": os.getpid(), "ended": time.time(), "jobs": {}}
    with contextlib.suppress(StorageError):  # the refusal is told on the console in any case
        if url_problem(store.url) is None and store.read(LOCK) is None:
            store.write("status.json", json.dumps({**content, "error": redact_text(str(error))}).encode())
    return True


def _is_url(config: SandboxConfig) -> bool:
    return is_remote(config.settings.work_dir or "")


def _url(config: SandboxConfig) -> str:
    return str(config.settings.work_dir).rstrip("/")


def _mirror_folder(config: SandboxConfig) -> Path:
    """The local folder that stands for the URL: on RAYSANDBOX_ROOT, which workers see, where that is set."""
    url, root = _url(config), os.environ.get("RAYSANDBOX_ROOT")
    parent = Path(root).expanduser() if root else cache_dir(config.settings.cache_dir)
    return parent.absolute() / "mirrors" / digest(url)[:16] / url.rpartition("/")[2]


@contextlib.contextmanager
def _held(base: Path, url: str) -> Iterator[None]:
    """Holds the mirror's folder: of two runs on this machine one comes first, whatever the store says."""
    held = RunFolder(base)
    try:
        held.__enter__()
    except WorkDirBusyError as error:
        raise WorkDirBusyError(str(error).replace(str(base), url)) from error
    try:
        yield
    finally:
        held.__exit__()


def _place(base: Path) -> str:
    """A name that only this mirror on this machine has: a lock that bears it was left by a process that is no more.

    The mirror's folder may be on storage that machines share, where `flock` need not exclude. It does
    within one kernel: the name changes with the boot, and with the host's name, which containers have of their
    own; then the lock's age decides.
    """
    path = base / "id"
    try:
        found = path.read_text(encoding="utf-8")
    except OSError:
        found = ""
    if not found:
        found = uuid.uuid4().hex
        atomic_write(path, found)
    boot = _BOOT.read_text(encoding="utf-8").strip() if _BOOT.exists() else ""
    return digest([found, socket.gethostname(), boot])


def _probe(config: SandboxConfig, store: ObjectStore) -> None:
    """Writes an object and removes it.

    Raises:
        ConfigError: that cannot be done.
    """
    name = f"{PROBE}{uuid.uuid4().hex}"
    try:
        store.write(name, b"raysandbox looks whether it may write here\n")
        store.remove(name)
    except StorageError as error:
        raise ConfigError([_unusable(config, error)]) from error


def _unusable(config: SandboxConfig, error: StorageError) -> Problem:
    fix = "check the bucket, the credentials in the environment and the endpoint"
    return config.document.problem(("work_dir",), str(error), fix)


def _prepare(mirror: Mirror, resume: bool, view: RunView, config: SandboxConfig) -> None:
    """Brings the state of the run that goes on, or moves that of an earlier one away.

    Raises:
        ConfigError: the store stopped answering.
    """
    try:
        if resume:
            view.note(f"looking at what stands in {mirror.store.url}")
            for note in mirror.fetch():
                view.note(note)
        elif (target := mirror.set_aside()) is not None:
            view.note(f"the earlier run in {mirror.store.url} was moved to {mirror.store.url}/{target}")
    except StorageError as error:
        raise ConfigError([_unusable(config, error)]) from error


class _Signals:
    """What ends a run in a store from outside: a signal, or another run that took its lock.

    Attributes:
        inbox: gets True when a signal arrived. A queue, since putting into it is safe in a signal's handler.
    """

    def __init__(self, view: RunView) -> None:
        self.inbox: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._view = view
        self._lost: str | None = None
        self._main = threading.current_thread() is threading.main_thread()

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Hears signals while the block runs.

        Raises:
            RunInterrupted: one arrived.
            JobFailed: the lock was lost.
        """
        try:
            with interruptible(lambda signum: self.inbox.put(True)):  # waits: never, the queue has no bound
                yield
        except RunInterrupted as error:
            if self._lost is not None:
                raise JobFailed(self._lost) from error
            raise

    def lock_lost(self, reason: str) -> None:
        """Ends the run: what it computes from now on is nobody's. Outside of the main thread it is only told."""
        self._lost = reason
        self._view.note(reason)
        if self._main:
            signal.pthread_kill(int(threading.main_thread().ident or 0), signal.SIGTERM)


@dataclass
class _Sender:
    """Sends what a run finishes while it goes on, and the rest when it ends."""

    mirror: Mirror
    lock: StorageLock
    view: RunView
    signals: queue.SimpleQueue[bool]
    _end: threading.Event = field(default_factory=threading.Event)
    _abandoned: threading.Event = field(default_factory=threading.Event)
    _told: bool = False

    def __post_init__(self) -> None:
        self.mirror.store = replace(self.mirror.store, abandoned=self._abandoned)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Sends while the block runs; then the rest.

        Raises:
            JobFailed: the block succeeded, or was ended for the lost lock, and its results could not be sent.
        """
        thread = threading.Thread(target=self._go_on, name="storage-sender", daemon=True)
        thread.start()
        threading.Thread(target=self._mark, name="storage-mark", daemon=True).start()
        try:
            yield
        finally:
            self.signals.put(False)
            error = sys.exception()
            hurry = isinstance(error, RunInterrupted | KeyboardInterrupt)
            self._end.set()
            self._abandoned.set()  # what fails now is tried again below
            self._wait_for(thread, hurry)
            self._send_rest(hurry, error)

    def _mark(self) -> None:
        """Sends `status.json` as soon as a signal has arrived: what ends the run may take longer than it is given."""
        if self.signals.get() and self.lock.lost is None:  # waits: for a signal or the end, as a daemon
            with contextlib.suppress(StorageError, OSError):  # it is sent again with the rest
                self.mirror.send_status()

    def _wait_for(self, thread: threading.Thread, hurry: bool) -> None:
        """Lets a round of sending end that goes on; a large file may take minutes. After a signal not for long."""
        began = time.monotonic()
        # waits: the store's own time limits end a round, and a signal ends this
        while thread.is_alive() and not (hurry and time.monotonic() - began > _HURRY_S):
            thread.join(_TELL_S if not hurry else _HURRY_S)
            if thread.is_alive():
                self.view.note(f"still sending to {self.mirror.store.url} ({time.monotonic() - began:.0f} s)")

    def _go_on(self) -> None:
        pause = _INTERVAL_S
        while not self._end.wait(pause) and self.lock.lost is None:
            began = time.monotonic()
            try:
                self.mirror.send_finished()
                self.mirror.send_state()
                if self._told:
                    self.view.note(f"{self.mirror.store.url} answers again")
                self._told = False
            except (StorageError, OSError) as error:  # OSError: a local file that went while it was read
                self._tell(error)
            pause = max(_INTERVAL_S, _REST * (time.monotonic() - began))

    def _tell(self, error: Exception) -> None:
        if not self._told and not self._end.is_set():
            self._told = True
            self.view.note(f"{error}; the run goes on in {self.mirror.folder}, and sending is tried again")

    def _send_rest(self, hurry: bool, error: BaseException | None) -> None:
        """Sends everything. After a signal the state comes first, since the process may be killed soon."""
        store = replace(self.mirror.store, patience_s=_END_PATIENCE_S, abandoned=None)
        self.mirror.store = replace(store, patience_s=_HURRY_S, answer_s=_HURRY_ANSWER_S) if hurry else store
        try:
            self.lock.check()
            if hurry:
                self.mirror.send_state()
            self.mirror.send_finished()
            self.mirror.send_rest()
            self.mirror.send_state()
        except (StorageError, OSError, JobFailed) as failure:
            message = f"{failure}: the results stand in {self.mirror.folder}; run again with --resume to send them"
            if error is not None and not (hurry and self.lock.lost):
                self.view.note(message)
                return
            _note_failure(self.mirror.folder / "status.json", message)
            raise JobFailed(message) from failure


def _note_failure(path: Path, message: str) -> None:
    """Says in the mirror's `status.json` that a run which was done is not in the store."""
    with contextlib.suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps({**content, "state": "failed", "exit": 1, "error": redact_text(message)}, indent=2)
        atomic_write(path, text + "\n")
