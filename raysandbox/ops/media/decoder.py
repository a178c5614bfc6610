"""Decoding in a process of its own, which can be killed when a file hangs or crashes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from raysandbox.core.errors import MissingExtraError

__all__ = ["Decoder", "Fault", "Job", "decoder"]

_START_S = 120.0
_END_S = 10.0


@dataclass(frozen=True)
class Job:
    """A question about a file: the name of a function in `worker.JOBS`, the path, further arguments."""

    name: str
    path: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Fault:
    """Why there is no answer."""

    reason: str


class Decoder:
    """A process that opens and decodes files, started when it is first needed and again after it was killed.

    It ends when the socket to it is closed: with this object or with this process, whatever ends that.
    """

    def __init__(self) -> None:
        self._process: _Process | None = None

    def answers(self, jobs: Sequence[Job], timeout_s: float) -> Iterator[Any]:
        """Yields the answer to each job, or a `Fault`; the next file is decoded meanwhile.

        Args:
            jobs: what to do, in order.
            timeout_s: seconds to wait for one answer, or for a sign that it is being worked on, before the
                process is killed.
        """
        sent = done = 0
        try:
            for index in range(len(jobs)):
                process = self._process = self._process or _Process()
                for job in jobs[sent : index + 2]:
                    process.send(job)
                sent = index + 2
                answer = process.answer(timeout_s)
                done = index + 1
                if not process.alive:
                    self._process, sent = None, done
                yield answer
        finally:
            if self._process and min(sent, len(jobs)) > done:  # answers that nobody waits for any more
                self._process.end()
                self._process = None


class _Process:
    """One run of `worker`."""

    def __init__(self) -> None:
        if find_spec("av") is None:
            raise MissingExtraError("av", "media", "reading videos and sounds")
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raysandbox.ops.media.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        self.end = weakref.finalize(self, _end, self._process, self._connection)
        fault = self.answer(_START_S)
        if fault is not None:
            raise RuntimeError(f"the decoder does not start: {fault.reason}")

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self.end.alive

    def send(self, job: Job) -> None:
        """Hands it a job."""
        with suppress(BrokenPipeError):  # that it ended is found when its answer is awaited
            self._connection.send((job.name, (job.path, *job.arguments)))

    def answer(self, timeout_s: float) -> Any:
        """Waits for the answer to the oldest job; ends the process where none comes."""
        try:
            while self._connection.poll(timeout_s):
                good, answer = self._connection.recv()  # waits: it has begun; a decoder that dies ends it
                if good is not None:  # else it only says that it goes on
                    return answer if good else Fault(answer)
        except (EOFError, ConnectionError):
            status = _status(self._process)
            self.end()
            return Fault(f"ends the decoder: {signal.Signals(-status).name if status < 0 else f'status {status}'}")
        self.end()
        return Fault(f"decoding took longer than {timeout_s:g} s")


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    process.kill()
    _status(process)


def _status(process: subprocess.Popen[bytes]) -> int:
    """How a process that closed its socket ended; one that hangs in the kernel counts as killed."""
    try:
        return process.wait(_END_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


_OF_THREAD = threading.local()


def decoder() -> Decoder:
    """The decoder of this thread."""
    if not hasattr(_OF_THREAD, "decoder"):
        _OF_THREAD.decoder = Decoder()
    return _OF_THREAD.decoder
