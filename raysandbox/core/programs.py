"""Runs a program: an argument list, its output as it comes, its end checked, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from raysandbox.core.errors import JobFailed

__all__ = ["child_environment", "run_program"]

_GUARD = Path(__file__).with_name("guard.py")
_TAIL_LINES = 15
_TAIL_CHARS = 3000
_POLL_S = 1.0
_REDRAW_S = 10.0  # a progress bar's line goes to the log that often
_END_S = 10.0  # for the guard to end what it guards
_SETTINGS = {"PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_BREAKS = re.compile(rb"\r\n|[\r\n]")


def child_environment(python: str) -> dict[str, str]:
    """The environment of a program that another interpreter runs: this process's, less what would lead it back.

    `CUDA_VISIBLE_DEVICES` stays as Ray set it for the worker. The interpreter's folder comes first in
    `PATH`, so that a script's `python` and `accelerate` are those of its environment. No compiled code is
    left in the checkout, which a job is known by.
    """
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "RAY_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    path = os.pathsep.join([str(Path(python).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, **_SETTINGS}


def run_program(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    stall_timeout_s: float,
    what: str,
    echo: bool = True,
    pass_fds: Sequence[int] = (),
) -> None:
    """Runs a program to its end; whatever ends this process or this call ends it with all its children.

    Args:
        command: argument list; no shell sees it.
        cwd: its working directory.
        environment: its environment variables.
        on_line: receives each line of its output; a progress bar that is drawn again is a new line.
        stall_timeout_s: seconds without output after which it is taken to hang.
        what: what messages call it.
        echo: whether its lines go to this process's standard output, of a progress bar one now and then.
        pass_fds: descriptors that it inherits.

    Raises:
        JobFailed: it could not be started, ended with another status than 0, was killed, or hung.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    hung = False
    with _guarded(command, cwd, environment, pass_fds) as process:
        assert process.stdout is not None
        log = _Log()
        for line, is_drawn in _lines(process.stdout, stall_timeout_s):
            if line is None:
                hung = True
                break
            if tail and log.last_was_drawn:
                tail.pop()  # the bar's earlier state
            tail.append(line)
            log.write(line, is_drawn, echo)
            on_line(line)
        status = -signal.SIGKILL
        try:
            status = status if hung else process.wait(stall_timeout_s)
        except subprocess.TimeoutExpired:  # it closed its output and goes on
            hung = True
    if not status:
        return
    end = _end_of(status, stall_timeout_s if hung else None)
    last = "\n".join(tail)[-_TAIL_CHARS:] or "(it wrote nothing)"
    raise JobFailed(f"{what} {end}; its last lines:\n{last}")


def _end_of(status: int, stalled_s: float | None) -> str:
    """How a program ended, in words."""
    if stalled_s is not None:
        return f"wrote nothing for {stalled_s:g} s and was ended (stall_timeout_s)"
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = ": perhaps the machine's memory was not enough" if -status == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"
    return f"ended with status {status}"


@contextlib.contextmanager
def _guarded(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], pass_fds: Sequence[int]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program below its guard; when the block ends, so do they."""
    process = subprocess.Popen(
        [sys.executable, "-I", str(_GUARD), *command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.PIPE,  # which the guard takes for this process's life
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=pass_fds,
    )
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel: nothing ends it
            process.wait(_END_S)


def _lines(output: IO[bytes], stall_timeout_s: float) -> Iterator[tuple[str | None, bool]]:
    """Yields (line, whether it is drawn over) as output comes; (None, False) when none comes any more."""
    pending, heard = b"", time.monotonic()
    while True:
        if not select.select([output], [], [], _POLL_S)[0]:
            if time.monotonic() - heard > stall_timeout_s:
                yield None, False
                return
            continue
        chunk = os.read(output.fileno(), 1 << 16)
        heard = time.monotonic()
        pending += chunk
        while found := _BREAKS.search(pending):
            line, pending = pending[: found.start()], pending[found.end() :]
            if line.strip():
                yield line.decode(errors="replace").rstrip(), found[0] == b"\r"
        if not chunk:
            if pending.strip():
                yield pending.decode(errors="replace").rstrip(), False
            return


class _Log:
    """The worker's log: every line, of a progress bar one now and then."""

    last_was_drawn = False

    def __init__(self) -> None:
        self._drawn_at = -_REDRAW_S

    def write(self, line: str, is_drawn: bool, echo: bool) -> None:
        """Writes a line, or leaves it out."""
        self.last_was_drawn = is_drawn
        if not echo:
            return
        if is_drawn:
            if time.monotonic() < self._drawn_at + _REDRAW_S:
                return
            self._drawn_at = time.monotonic()
        sys.stdout.write(line + "\n")
