"""Whether a folder or URL is the same storage for everybody, and can be written: probe files.

The driver writes one, every node reads it and writes one of its own, which the driver reads. A local
folder that exists on two machines, each with its own content, is found out by that.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass, field
from typing import Any

from raysandbox.core.names import is_remote, local_name
from raysandbox.runtime.machine import nearest, within

__all__ = ["Probe", "Seen", "answer", "place", "reads_of", "remove"]

_ANSWER_S = 10.0  # of the storage, for one step


@dataclass(frozen=True)
class Probe:
    """A probe file of the driver's.

    Attributes:
        role: what the storage is for.
        path: folder or URL as it is configured.
        folder: it, or the nearest folder above that exists.
        name: of the file.
        text: its content.
        error: why it could not be written, "" where it was.
        seconds: what writing it took.
    """

    role: str
    path: str
    folder: str = ""
    name: str = field(default_factory=lambda: f".raysandbox-probe-{uuid.uuid4().hex}")
    text: str = field(default_factory=lambda: uuid.uuid4().hex)
    error: str = ""

    def file_of(self, who: str = "") -> str:
        """The driver's file, or a node's."""
        return f"{self.folder.rstrip('/')}/{self.name}{f'-{who}' if who else ''}"


@dataclass(frozen=True)
class Seen:
    """What a node found: whether it read the driver's file, and wrote its own.

    Attributes:
        role: of the probe.
        read: "" when it read what the driver wrote; else why not.
        wrote: "" when it could write; else why not.
        returned: "" when the driver read what the node wrote; else why not.
    """

    role: str
    read: str = ""
    wrote: str = ""
    returned: str = ""


def place(role: str, path: str) -> Probe:
    """Writes the driver's probe file."""
    try:
        folder = path if is_remote(path) else str(within(_ANSWER_S, nearest, local_name(path)))
        probe = Probe(role, path, folder)
        within(_ANSWER_S, _write, probe.file_of(), probe.text)
    except Exception as error:  # noqa: BLE001 - every store raises errors of its own kind
        return Probe(role, path, path, error=reason_of(error))
    return probe


def answer(probe: Probe, who: str) -> Seen:
    """On a node: reads the driver's file and writes one of its own."""
    read = _attempt(_compare, probe.file_of(), probe.text)
    return Seen(probe.role, read, _attempt(_write, probe.file_of(who), probe.text + who))


def reads_of(probe: Probe, who: str) -> str:
    """On the driver: "" when what a node wrote is here, else why not."""
    return _attempt(_compare, probe.file_of(who), probe.text + who)


def remove(probe: Probe, who: str = "") -> None:
    """Removes a probe file, if it is there."""
    with contextlib.suppress(Exception):
        within(_ANSWER_S, _remove, probe.file_of(who))


def reason_of(error: Exception) -> str:
    """An error in one line, without the name of the probe file."""
    if isinstance(error, FileNotFoundError):
        return "the file is not there"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip().split("\n")[0]
    return text[:200] or type(error).__name__


def _attempt(function: Any, *arguments: Any) -> str:
    try:
        within(_ANSWER_S, function, *arguments)
    except Exception as error:  # noqa: BLE001 - every store raises errors of its own kind
        return reason_of(error)
    return ""


def _write(path: str, text: str) -> None:
    system, inner = _system(path)
    system.pipe_file(inner, text.encode())


def _compare(path: str, text: str) -> None:
    system, inner = _system(path)
    if system.cat_file(inner) != text.encode():
        raise ValueError("the file holds something else")


def _remove(path: str) -> None:
    system, inner = _system(path)
    system.rm_file(inner)


def _system(path: str) -> tuple[Any, str]:
    """A file system without remembered listings."""
    from fsspec.core import url_to_fs

    return url_to_fs(path, skip_instance_cache=True, use_listings_cache=False)
