"""What tasks of Ray Data print, warnings of their libraries too, in the log of the job whose tasks they are.

Their processes belong to all jobs of a driver, so output is caught per task: into a file for each process
and job, in a folder below the node's temporary one, whose name the driver gives. Of what is written there
each node sends the new part now and then, so the last words of a process that died arrive as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from raysandbox.core.disk import dispensable
from raysandbox.core.files import remove
from raysandbox.core.redact import redact_text
from raysandbox.core.scope import current_log
from raysandbox.runtime.log_file import append, read_piece, stamped
from raysandbox.runtime.tasks import call_on

__all__ = ["TaskOutput", "caught"]

_EVERY_S = 2.0
_PER_NODE_S = 0.05  # of that time: nodes by the hundred are asked more rarely
_LAST_S = 10.0
_TAIL_LINES = 20


class _News(NamedTuple):
    """What a process of a node wrote since the last time."""

    pid: int
    start: int
    data: bytes
    alive: bool


@contextlib.contextmanager
def caught(token: str) -> Iterator[None]:
    """Sends what this process and its children write while the block runs to its file.

    Args:
        token: names the driver's `TaskOutput`; "" catches nothing.
    """
    if not token:
        yield
        return
    import ray

    folder = _folder(token, ray.get_runtime_context().get_node_id())
    saved: list[int] = []
    with dispensable("the output of a task", folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        saved = [os.dup(1), os.dup(2)]
        _point_to(file, file)
        os.close(file)
    try:
        yield
    finally:
        if saved:
            _point_to(*saved)
            for stream in saved:
                os.close(stream)


def _point_to(output: int, errors: int) -> None:
    for stream, descriptor, target in ((sys.stdout, 1, output), (sys.stderr, 2, errors)):
        stream.flush()
        os.dup2(target, descriptor)


def _folder(token: str, node: str) -> Path:
    """Of the files of a node's processes: raylets on one machine have one each."""
    return Path(tempfile.gettempdir(), f"raysandbox-output-{token}", node)


def _look(token: str, node: str, offsets: Mapping[int, int]) -> list[_News]:
    """What processes of this node wrote after some offsets, redacted by what is secret here."""
    found = []
    for path in sorted(_folder(token, node).glob("*")):
        pid = int(path.name)
        alive = Path(f"/proc/{pid}").exists()  # looked up first: what is dead writes no more
        start, data = read_piece(str(path), offsets.get(pid, 0))
        found.append(_News(pid, start, data, alive))
    return found


def _remove(token: str, node: str) -> None:
    folder = _folder(token, node)
    remove(folder)
    with contextlib.suppress(OSError):  # another raylet of this machine has its files there
        folder.parent.rmdir()


@dataclass
class _Process:
    """What is known of a process's output."""

    offset: int = 0
    part: bytes = b""
    alive: bool = True
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))


class TaskOutput:
    """Copies the output of a job's tasks to its log; a context manager.

    Attributes:
        token: for `caught`; "" where this thread works for no job, and nothing is copied.
        log: the job's log.
    """

    def __init__(self) -> None:
        self.log = current_log()
        self.token = uuid.uuid4().hex[:12] if self.log is not None else ""
        self._processes: dict[tuple[str, int], _Process] = {}
        self._asked: dict[str, Any] = {}  # node -> its answer, on its way
        self._names: dict[str, str] = {}  # node -> its address
        self._next = 0.0
        self._last_dead: _Process | None = None

    def __enter__(self) -> TaskOutput:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.token:
            return
        self.pull(last=True)
        for node in self._names:
            self._call(node, _remove, self.token, node)

    def pull(self, *, last: bool = False) -> None:
        """Copies what is new, if some time has passed; with `last` all there is, within a time."""
        if not self.token or (not last and time.monotonic() < self._next):
            return
        import ray

        self._take_answers(_LAST_S if last else 0.0)
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        self._names |= nodes
        for node in nodes:
            if node not in self._asked:
                offsets = {pid: process.offset for (where, pid), process in self._processes.items() if where == node}
                self._asked[node] = self._call(node, _look, self.token, node, offsets)
        if last:
            self._take_answers(_LAST_S)
            for (node, pid), process in self._processes.items():
                self._write(node, pid, process, process.part)
        self._next = time.monotonic() + max(_EVERY_S, _PER_NODE_S * len(nodes))

    def last_words(self) -> str:
        """The last lines of the process that died last, as far as is known."""
        self.pull(last=True)
        return "\n".join(self._last_dead.tail) if self._last_dead else ""

    def _call(self, node: str, function: Any, *args: Any) -> Any:
        import ray

        if node == ray.get_runtime_context().get_node_id():
            return function(*args)
        return call_on(node, function, *args)

    def _take_answers(self, patience: float) -> None:
        """Takes what nodes answered; an answer from this machine is there at once."""
        import ray
        from ray.exceptions import RayError

        waiting = [answer for answer in self._asked.values() if isinstance(answer, ray.ObjectRef)]
        ready = ray.wait(waiting, num_returns=len(waiting), timeout=patience)[0] if waiting else []
        for node, answer in list(self._asked.items()):
            if isinstance(answer, ray.ObjectRef) and answer not in ready:
                continue
            del self._asked[node]
            try:
                news = ray.get(answer, timeout=_LAST_S) if isinstance(answer, ray.ObjectRef) else answer
            except RayError:
                continue  # the node is gone, and its files with it
            for each in news:
                self._take(node, each)

    def _take(self, node: str, news: _News) -> None:
        process = self._processes.setdefault((node, news.pid), _Process())
        if news.start > process.offset:
            self._append(node, news.pid, f"{news.start - process.offset} bytes of output are left out here")
        process.offset = news.start + len(news.data)
        lines, end, process.part = (process.part + news.data).rpartition(b"\n")
        self._write(node, news.pid, process, lines + end)
        if process.alive and not news.alive:
            process.alive = False
            self._write(node, news.pid, process, process.part)
            process.part = b""
            self._last_dead = process

    def _write(self, node: str, pid: int, process: _Process, data: bytes) -> None:
        if data:
            text = redact_text(data.decode("utf-8", errors="replace"))
            process.tail.extend(text.splitlines()[-_TAIL_LINES:])
            self._append(node, pid, text)

    def _append(self, node: str, pid: int, text: str) -> None:
        if self.log is not None:
            append(self.log, stamped(text, f"{self._names.get(node, '')} pid {pid}"))
