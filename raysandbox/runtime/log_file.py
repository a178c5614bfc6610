"""Files of output: pieces of one that a process still writes, and logs that do not grow without end.

It runs in workers too, so it imports nothing but Python's standard library and `core`.
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import NamedTuple

from raysandbox.core.disk import dispensable

__all__ = ["MOST_BYTES", "Piece", "append", "read_piece", "stamped"]

MOST_BYTES = 64 << 20  # of a log, before it is put aside; and of output that waits to be copied
_PIECE = 4 << 20  # bytes that are read at a time
_PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, of Linux


class Piece(NamedTuple):
    """A part of a file.

    Attributes:
        start: its first byte; later than what was asked for where too much had been written meanwhile.
        data: its bytes.
    """

    start: int
    data: bytes


def read_piece(path: str, offset: int, most: int = MOST_BYTES) -> Piece:
    """What a process wrote to its output file from an offset on, a bounded number of bytes.

    What was read before is given back to the disk, so that a worker that talks without end fills none;
    of what nobody fetched for long only the last `most` bytes are read.
    """
    try:
        with open(path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(offset, size - most)
            _free(file.fileno(), start)
            file.seek(start)
            return Piece(start, file.read(_PIECE))
    except FileNotFoundError:
        return Piece(offset, b"")


def _free(descriptor: int, end: int) -> None:
    """Gives the blocks below an offset back to the disk, where its file system can; the file's length stays."""
    if end >= _PIECE:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate(descriptor, _PUNCH_HOLE, ctypes.c_int64(0), ctypes.c_int64(end))


def stamped(text: str, who: str) -> str:
    """Lines with the time and who wrote them."""
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {who}| "
    return head + text.removesuffix("\n").replace("\n", f"\n{head}") + "\n"


def append(log: Path, text: str, limit: int = MOST_BYTES) -> None:
    """Appends to a log that the run can do without; one that has reached the limit is put aside, one of them.

    Args:
        log: the file.
        text: whole lines.
        limit: bytes.
    """
    with dispensable("a job's log", log):
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size >= limit:
            aside = log.with_name(f"{log.name}.old")
            had_older = aside.exists()
            os.replace(log, aside)
            lost = "; lines before those are gone" if had_older else ""
            text = f"(this log has reached {limit >> 20} MB: earlier lines are in {aside.name}{lost})\n{text}"
        with log.open("a", encoding="utf-8") as file:
            file.write(text)
