"""A worker's standard output and error: to a file where it runs, and from there to the job's log.

The driver fetches the file's new bytes, by a small task on the worker's node when that is another
one. So the last words of a worker that was killed are not lost as long as its node lives. Each line
gets the time at which the driver saw it, about a second after it was written, the node and the worker.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.redact import redact_text, remember_secrets, secret_values
from raysandbox.runtime.log_file import MOST_BYTES, Piece, append, read_piece, stamped
from raysandbox.runtime.tasks import call_on

__all__ = ["LogFollower", "WorkerAddress", "log_of", "redirect_output", "remove_file", "where_is"]

_TAIL_LINES = 20
_FETCH_S = 10.0
_PIECES, _LAST_PIECES = 4, 64  # copied at a time from one worker: another one has its turn then, too


@dataclass(frozen=True)
class WorkerAddress:
    """Where a worker lives.

    Attributes:
        node_id: Ray's id of its node.
        pid: its process.
        output: file with its standard output and error, on that node.
        secrets: of its environment, which need not be the driver's: its output is redacted there.
        node: address of its node.
        actor: Ray's id of its actor, "" where it is none.
    """

    node_id: str
    pid: int
    output: str
    secrets: frozenset[str] = field(default_factory=lambda: frozenset(secret_values()), repr=False)
    node: str = ""
    actor: str = ""

    @classmethod
    def of_this_process(cls) -> WorkerAddress:
        """That of the worker in which this is called; from now on its output goes to a file."""
        import ray

        context = ray.get_runtime_context()
        node, actor = ray.util.get_node_ip_address(), context.get_actor_id() or ""
        return cls(context.get_node_id(), os.getpid(), redirect_output(), node=node, actor=actor)


def where_is(address: WorkerAddress) -> dict[str, Any]:
    """Where a worker is, as fields of an event."""
    return {"node": address.node, "pid": address.pid, "actor": address.actor or None}


def log_of(log: Path, number: int) -> Path:
    """Log of a job's worker: the job's own for number 0, `LOG.1.log` for number 1, and so on."""
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


def remove_file(path: str) -> None:
    """Removes a file, if it is there."""
    Path(path).unlink(missing_ok=True)


class LogFollower:
    """Copies a worker's output to its log, redacted, whole lines at a time.

    Nothing here waits for another node, apart from the last pull: a node that just went away would
    hold up the work on all others.

    Args:
        address: where the worker lives.
        log: the job's log; worker 0 has its output there, others beside it (`log_of`).
        number: of the worker.
        limit: bytes after which the log is put aside and another begun.

    Attributes:
        node: id of the worker's node.
    """

    def __init__(self, address: WorkerAddress, log: Path, number: int = 0, limit: int = MOST_BYTES) -> None:
        remember_secrets({"secrets": address.secrets})
        self._address = address
        self.node = address.node_id
        self._log, self._limit = log_of(log, number), limit
        self._who = f"{address.node} worker {number}"
        self._offset = 0
        self._part = b""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._fetch: Any = None  # what is on its way from another node
        begins = f"starts with pid {address.pid}"
        self._append(begins)
        if number:
            append(log, stamped(f"{begins}; its output is in {self._log.name}", self._who), limit)

    def pull(self, *, last: bool = False) -> None:
        """Copies what is new, a bounded amount; with `last` all that there is, also a line without its end."""
        on_its_way = last and self._fetch is not None  # it may have been read before the last words
        for _ in range(_LAST_PIECES if last else _PIECES):
            piece = self._read(_FETCH_S if last else 0.0)
            if not piece.data and not on_its_way:
                break
            on_its_way = False
            self._take(piece)
        if last:
            self._write(self._part)
            self._part = b""

    def close(self, *, wait: bool = True) -> None:
        """Removes the worker's file; without `wait` on another node a little later."""
        import ray

        if self._is_here():
            remove_file(self._address.output)
            return
        removed = call_on(self.node, remove_file, self._address.output)
        if wait:
            ray.wait([removed], timeout=_FETCH_S)  # waits: a file that stays behind costs nothing but its bytes

    @property
    def tail(self) -> str:
        """The last lines, without times."""
        return "\n".join(self._tail)

    def _take(self, piece: Piece) -> None:
        skipped = piece.start - self._offset
        if skipped > 0:
            self._write(self._part)
            self._part = b""
            self._append(f"wrote faster than it can be copied: {skipped} bytes of its output are left out here")
        self._offset = piece.start + len(piece.data)
        lines, end, part = (self._part + piece.data).rpartition(b"\n")
        if len(part) > self._limit:  # a line without an end
            lines, end, part = lines + end + part, b"\n", b""
        self._part = part
        self._write(lines + end)

    def _write(self, data: bytes) -> None:
        if data:
            text = redact_text(data.decode("utf-8", errors="replace"))
            self._tail.extend(text.splitlines()[-_TAIL_LINES:])
            self._append(text)

    def _append(self, text: str) -> None:
        append(self._log, stamped(text, self._who), self._limit)

    def _read(self, patience: float) -> Piece:
        """New bytes; none when there are none, or none within the time."""
        import ray
        from ray.exceptions import RayError

        if self._is_here():
            return read_piece(self._address.output, self._offset)
        if self._fetch is None:
            self._fetch = call_on(self.node, read_piece, self._address.output, self._offset)
        nothing = Piece(self._offset, b"")
        if not ray.wait([self._fetch], timeout=patience)[0]:
            return nothing
        fetch, self._fetch = self._fetch, None
        try:
            return ray.get(fetch, timeout=_FETCH_S)  # a RayError, too
        except RayError:
            return nothing  # the node is gone, and the file with it

    def _is_here(self) -> bool:
        import ray

        return self.node == ray.get_runtime_context().get_node_id()
