"""The journal of a run: one JSON object per line, appended, never rewritten."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysandbox.core.disk import writes
from raysandbox.core.redact import redact

__all__ = ["Journal", "append_whole", "read_events", "repair_tail"]

logger = logging.getLogger(__name__)

# Events of single units and workers: there may be thousands a second, and nothing is decided by them. What a unit
# made is on disk with a record of its own.
_FREQUENT = frozenset(
    {"unit_done", "unit_failed", "worker_started", "worker_ended", "worker_lost", "worker_draining", "fair_share"}
)
_SYNC_S = 1.0
_TAIL = 1 << 16  # bytes at the end of a journal that are looked at for its last number
_FORMS = (frozenset({"t", "seq", "run", "event"}), frozenset({"name", "value", "step"}))  # of a journal, of metrics


class Journal:
    """Appends events `{"t", "seq", "run", "event", …}`; each is on disk when `emit` returns. Safe in threads.

    Those of single units and workers are with the operating system then, so that a killed process loses none; they
    reach the disk within a second of work, or with the next event of another kind.

    Args:
        path: the file; an earlier run's events in it are kept and its numbering goes on.
        run_id: name of this run.

    Attributes:
        run_id: name of this run.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        repair_tail(path)
        self.run_id = run_id
        self._seq = _last_number(path) + 1
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._synced = time.monotonic()

    def emit(self, event: str, **fields: Any) -> None:
        """Appends one event; values are redacted.

        Raises:
            WriteFailed: the disk is full; the file is as before.
        """
        fields = redact(fields)
        with self._lock:
            line = {"t": round(time.time(), 3), "seq": self._seq, "run": self.run_id, "event": event, **fields}
            append_whole(self._file, (json.dumps(line, ensure_ascii=False, default=str) + "\n").encode())
            self._seq += 1
        if event not in _FREQUENT or time.monotonic() > self._synced + _SYNC_S:
            self._sync()

    def close(self) -> None:
        """Syncs and closes the file."""
        if not self._file.closed:
            self._sync()
        self._file.close()

    def _sync(self) -> None:
        began = time.monotonic()
        os.fsync(self._file.fileno())
        self._synced = began


def append_whole(file: io.FileIO, data: bytes) -> None:
    """Appends to an unbuffered file, all or nothing: a full disk leaves no half of a line in its middle.

    Raises:
        WriteFailed: the disk is full; the file is as before.
    """
    size = os.fstat(file.fileno()).st_size
    rest = memoryview(data)
    try:
        with writes(Path(os.fsdecode(file.name))):
            while rest:
                rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(size)
        raise


def read_events(path: Path, start: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yields the whole lines of a journal, or of metrics, from a byte on, oldest first; others are passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(start)
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and any(form <= event.keys() for form in _FORMS):
                yield event


def _last_number(path: Path) -> int:
    """The highest number in a journal, -1 where there is none: numbers grow, so that its end has it."""
    size = path.stat().st_size if path.is_file() else 0
    for start in (max(size - _TAIL, 0), 0):  # an end of damaged lines tells nothing
        numbers = [event["seq"] for event in read_events(path, start) if "seq" in event]
        if numbers:
            return max(numbers)
    return -1


def repair_tail(path: Path) -> None:
    """Cuts off a last line that a kill left without its end, so that appending stays readable."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        content = path.read_bytes()
        file.truncate(content.rfind(b"\n") + 1)
