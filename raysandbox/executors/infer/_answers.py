"""Answers to requests, and the log that keeps them, so that a killed run asks for the rest only.

It imports nothing but Python's standard library: workers of other environments use it too.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from raysandbox.core.disk import dispensable

__all__ = ["Answer", "AnswerLog", "Fault", "count_of"]

_SYNC_S = 1.0
_COUNTS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: its text.
        prompt_tokens: tokens of the prompt; None when it is not told.
        completion_tokens: tokens of the text; None when it is not told.
        cut: whether it ended because it had as many tokens as it was allowed.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cut: bool = False


@dataclass(frozen=True)
class Fault:
    """Why there is no answer.

    Attributes:
        reason: for the user.
        lasting: whether asking again would end the same way, so that the log keeps it.
    """

    reason: str
    lasting: bool = False


def count_of(value: Any) -> int | None:
    """A number of tokens as a server or the log tells it; None when it cannot be one."""
    return value if type(value) is int and 0 <= value < 2**53 else None


class AnswerLog:
    """Outcomes by the keys of their requests, in a folder that runs share.

    Every run appends to a file of its own, so that runs at the same time, on several machines too,
    do not meet. A line goes to the operating system at once, which is what the death of this
    process cannot take back, and to the disk about once a second, by a thread, since disks may take
    long. The torn last line that the death of the machine may leave is not read.

    Args:
        folder: tells that of the outcomes that share model, endpoint and parameters. It is asked again
            before the first outcome is kept: by then a model may lie here that had to be fetched.
        read: whether outcomes of earlier runs count.
    """

    def __init__(self, folder: Callable[[], Path], *, read: bool = True) -> None:
        self._folder = folder
        self._known = dict(_records(folder())) if read else {}
        self._file: int | None = None
        self._syncing: threading.Thread | None = None
        self._over = threading.Event()
        self._where: Path | None = None
        self._full = False  # nothing is kept any more

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None and self._syncing is not None:
            self._over.set()
            self._syncing.join()  # waits: for an fsync under way, which nothing can interrupt
            with dispensable("the log of answers", self._where or Path()):
                os.fsync(self._file)
            os.close(self._file)
            self._file = None

    def get(self, key: str) -> Answer | Fault | None:
        """The outcome of a request; None when it is not known."""
        return self._known.get(key)

    def add(self, key: str, outcome: Answer | Fault) -> None:
        """Keeps an outcome, if the disk takes it."""
        if self._full:
            return
        self._where = self._where or self._folder()
        self._full = True  # unless what follows succeeds
        with dispensable("the log of answers", self._where):
            self._append(self._where, key, outcome)
            self._full = False

    def _append(self, folder: Path, key: str, outcome: Answer | Fault) -> None:
        if self._file is None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl"
            self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
            self._syncing = threading.Thread(target=self._sync, args=(self._file,), name="answer log", daemon=True)
            self._syncing.start()
        record = json.dumps({"key": key, **asdict(outcome)}).encode() + b"\n"
        while record:  # a full disk or a signal may cut a write short
            record = record[os.write(self._file, record) :]

    def _sync(self, file: int) -> None:
        while not self._over.wait(_SYNC_S):  # waits: until its log is closed, as a daemon
            with contextlib.suppress(OSError):  # told when the file is closed
                os.fsync(file)


def _records(folder: Path) -> Iterator[tuple[str, Answer | Fault]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                record = _record(line)
                if record is not None:
                    yield record


def _record(line: bytes) -> tuple[str, Answer | Fault] | None:
    """A line's outcome; None for a torn line."""
    if not line.endswith(b"\n"):
        return None
    try:
        record: dict[str, Any] = json.loads(line)
        key = record.pop("key")
        if "text" not in record:
            return key, Fault(**record)
        return key, Answer(**{**record, **{name: count_of(record.get(name)) for name in _COUNTS}})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
