"""Runs a program so that it ends with all its children when whoever asked for it is gone.

A file to be run by itself: `python guard.py COMMAND…`, with a pipe as standard input that the
caller holds open. A worker of Ray is ended by SIGKILL, which leaves it no time to end what it started;
the kernel then closes the pipe, and the guard ends every process below itself, also those that
made sessions of their own. The exit status is the program's; a program that a signal killed makes the
guard end by the same signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_END_S = 8.0  # what hangs in the kernel for longer cannot be ended from here
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def children(parent: int) -> list[int]:
    """Processes that a process started, or inherited from those of them that ended."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                # The name of the program, in parentheses, may hold anything.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


def end_all() -> None:
    """Ends every process below this one; children of what ends become children of this one, and end too."""
    end = time.monotonic() + _END_S
    while (found := children(os.getpid())) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(ChildProcessError):  # the first process of a container may wait for nobody
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch() -> None:
    """Waits for the end of the caller, which closes the pipe."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _ended(signum: int, frame: object) -> None:
    signal.signal(signum, signal.SIG_IGN)
    end_all()
    os._exit(128 + signum)


def main(command: list[str]) -> int:
    """Runs a command; returns its exit status, negative for a signal."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, _ended)
    try:
        with open(os.devnull) as nothing:
            program = subprocess.Popen(command, stdin=nothing, preexec_fn=_die_with_parent)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    threading.Thread(target=_watch, daemon=True).start()
    try:
        return program.wait()  # waits: whoever started this decides for how long, and closes the pipe
    finally:
        end_all()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -status)
    sys.exit(status)
