"""Files that cannot be written: said with the file, the room left and what to do; caches are done without."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysandbox.core.errors import UserError, WriteFailed

__all__ = ["dispensable", "write_failure", "writes"]

logger = logging.getLogger(__name__)

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What libraries that are not written in Python say instead of raising an OSError.
_TEXTS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
}
_ROOM_BYTES = 1 << 30  # with more than this free, a disk is not the full one
_FULL_BYTES = 64 << 10  # with less than this free, a library's unclear error while it writes is a full disk
_told: set[str] = set()  # what was said to be done without


@contextmanager
def writes(target: Path) -> Iterator[None]:
    """Turns the errors of a disk that is full or read-only, in a block that writes, into one that a user understands.

    Args:
        target: the file that the block writes, or the folder.

    Raises:
        WriteFailed: an `OSError` that names the file, the folder, how much room is left and what to do.
    """
    try:
        yield
    except Exception as error:
        failed = write_failure(error, target)
        if failed is None:
            raise
        raise failed from error


def write_failure(error: Exception, target: Path) -> WriteFailed | None:
    """What an error says about a disk that is full or read-only; None where it says something else.

    Args:
        error: what was raised while files were written.
        target: which file, or in which folder; what the error names itself counts more.
    """
    if isinstance(error, UserError):
        return error if isinstance(error, WriteFailed) else None
    number = _number_of(error)
    folder, free, total = _fullest(target)
    if number is None and isinstance(error, RuntimeError) and free < _FULL_BYTES:
        number = errno.ENOSPC
    if number is None:
        return None
    named = getattr(error, "filename", None)
    path = target if named is None or Path(os.fsdecode(named)).name.startswith(".tmp-") else Path(os.fsdecode(named))
    if number == errno.EROFS:
        advice = "make the folder writable, or choose another"
    elif number == errno.ENOSPC and free > _ROOM_BYTES:  # another disk than those that are looked at
        advice = "make room on the disk that holds it, then run again with --resume"
    else:
        advice = f"{folder} has {_size(free)} free of {_size(total)}: make room there, then run again with --resume"
    return WriteFailed(number, f"{os.strerror(number)} ({advice})", str(path))


def _number_of(error: BaseException | None) -> int | None:
    """The number of the file system's refusal that an error is, or was raised for."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error.errno
        for text, number in _TEXTS.items():
            if text in str(error):
                return number
        error = error.__cause__
    return None


def _fullest(target: Path) -> tuple[Path, int, int]:
    """Of the disks of a file and of temporary files that with less room: a folder, its free bytes, and all."""
    found = []
    for start in (target.absolute(), Path(tempfile.gettempdir())):
        folder = next(path for path in (start, *start.parents) if path.is_dir())
        usage = shutil.disk_usage(folder)
        found.append((folder, usage.free, usage.total))
    return min(found, key=lambda item: item[1])


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@contextmanager
def dispensable(what: str, target: Path) -> Iterator[None]:
    """Lets a write fail, to a cache or a log: the work goes on without, which is said once per process.

    Args:
        what: is written, "the statistics store".
        target: the file, or its folder.
    """
    try:
        with writes(target):
            yield
    except OSError as error:
        if what not in _told:
            _told.add(what)
            logger.warning("%s cannot be written, and the run goes on without: %s", what, error)
