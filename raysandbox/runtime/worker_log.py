"""A worker's standard output and error: to a file where it runs, and from there to the job's log.

The driver fetches the file's new bytes, by a small task on the worker's node when that is another
one. So the last words of a worker that was killed are not lost as long as its node lives.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.disk import dispensable
from raysandbox.core.redact import redact_text, remember_secrets, secret_values

__all__ = ["LogFollower", "WorkerAddress", "log_of", "redirect_output"]

_CHUNK = 4 << 20  # bytes fetched at a time
_TAIL_LINES = 20
_FETCH_S = 10.0


@dataclass(frozen=True)
class WorkerAddress:
    """Where a worker lives.

    Attributes:
        node_id: Ray's id of its node.
        pid: its process.
        output: file with its standard output and error, on that node.
        secrets: of its environment, which need not be the driver's: its output is redacted there.
    """

    node_id: str
    pid: int
    output: str
    secrets: frozenset[str] = field(default_factory=lambda: frozenset(secret_values()), repr=False)


def log_of(log: Path, number: int) -> Path:
    """Log of a job's worker: the job's own for the first, `LOG.2.log` for number 2, and so on."""
    return log.with_suffix(f".{number}{log.suffix}") if number else log


def redirect_output() -> str:
    """Sends this process's standard output and error, its children's too, to a new file; returns its path."""
    descriptor, path = tempfile.mkstemp(prefix="raysandbox-", suffix=".log")  # readable by this user only
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    return path


def read_from(path: str, offset: int) -> bytes:
    """Bytes of a file from an offset on, a bounded number; empty when there are none or no file."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(_CHUNK)
    except FileNotFoundError:
        return b""


def remove_file(path: str) -> None:
    """Removes a file, if it is there."""
    Path(path).unlink(missing_ok=True)


class LogFollower:
    """Copies a worker's output to the job's log, redacted, whole lines at a time.

    Nothing here waits for another node, apart from the last pull: a node that just went away would
    hold up the work on all others.

    Args:
        address: where the worker lives.
        log: the job's log; the output is appended.

    Attributes:
        node: id of the worker's node.
    """

    def __init__(self, address: WorkerAddress, log: Path) -> None:
        remember_secrets({"secrets": address.secrets})
        self._address = address
        self.node = address.node_id
        self._log = log
        self._offset = 0
        self._part = b""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._fetch: Any = None  # what is on its way from another node

    def pull(self, *, last: bool = False) -> None:
        """Copies what is new; with `last` all that there is, also a line without its end."""
        on_its_way = last and self._fetch is not None  # it may have been read before the last words
        while (data := self._read(_FETCH_S if last else 0.0)) or on_its_way:
            on_its_way = False
            self._offset += len(data)
            lines, end, part = (self._part + data).rpartition(b"\n")
            self._part = part
            self._write(lines + end)
        if last:
            self._write(self._part)
            self._part = b""

    def close(self, *, wait: bool = True) -> None:
        """Removes the worker's file; without `wait` on another node a little later."""
        import ray

        if self._is_here():
            remove_file(self._address.output)
            return
        removed = self._call_there(remove_file, self._address.output)
        if wait:
            ray.wait([removed], timeout=_FETCH_S)  # waits: a file that stays behind costs nothing but its bytes

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._tail)

    def _write(self, data: bytes) -> None:
        if data:
            text = redact_text(data.decode("utf-8", errors="replace"))
            self._tail.extend(text.splitlines())
            with dispensable("a job's log", self._log):
                self._log.parent.mkdir(parents=True, exist_ok=True)
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(text)

    def _read(self, patience: float) -> bytes:
        """New bytes; empty when there are none, or none within the time."""
        import ray
        from ray.exceptions import RayError

        if self._is_here():
            return read_from(self._address.output, self._offset)
        if self._fetch is None:
            self._fetch = self._call_there(read_from, self._address.output, self._offset)
        if not ray.wait([self._fetch], timeout=patience)[0]:
            return b""
        fetch, self._fetch = self._fetch, None
        try:
            return ray.get(fetch, timeout=_FETCH_S)  # a RayError, too
        except RayError:
            return b""  # the node is gone, and the file with it

    def _is_here(self) -> bool:
        import ray

        return self._address.node_id == ray.get_runtime_context().get_node_id()

    def _call_there(self, function: Any, *args: Any) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self._address.node_id, soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": there, "max_retries": 0}
        return ray.remote(function).options(**options).remote(*args)
