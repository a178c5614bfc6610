"""What a piece of code starts, writes or asks of the network, as Python's audit events tell."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_STARTS = {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn"}
_WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
_ASKS = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_seen: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in _STARTS | _WRITES | _ASKS:
        _seen.append(f"{event} {arguments[:2]!r:.200}")
    elif event == "open" and arguments[2] & _WRITING and ".pyc" not in str(arguments[0]):
        _seen.append(f"opens for writing: {arguments[0]!r:.200}")


sys.addaudithook(_note)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The events within; a hook cannot be taken away, so it looks away outside."""
    global _seen
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None
