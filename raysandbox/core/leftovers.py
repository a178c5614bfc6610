"""Temporary files of processes that were killed while they wrote."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from raysandbox.core.files import remove

__all__ = ["remove_leftovers", "tidy_cache"]

# The names under which everything is written before its rename; a user's own file is hardly called so.
_TEMPORARY = re.compile(r"\.tmp-(\d+-[0-9a-f]{8}|[0-9a-f]{32}$|.*-[0-9a-f]{8}$)")
_OLD_S = 3600.0  # nothing is written for so long without a sign of life
_SWEPT = ".swept"


def remove_leftovers(
    folder: Path, older_than_s: float = 0.0, is_others: Callable[[Path], bool] = lambda folder: False
) -> int:
    """Removes temporary files and folders below a folder, in which nobody writes any more.

    Args:
        folder: where.
        older_than_s: younger ones stay, for a folder in which others may be writing.
        is_others: whether a folder below is somebody else's, who may be writing in there: all of it stays.

    Returns:
        how many there were.
    """
    before, count = time.time() - older_than_s, 0
    for parent, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if _TEMPORARY.match(name)]:
            path = Path(parent, name)
            with contextlib.suppress(OSError):  # its writer has renamed it, or it is another user's
                if path.lstat().st_mtime <= before:
                    remove(path)
                    count += 1
        folders[:] = [name for name in folders if not _TEMPORARY.match(name) and not is_others(Path(parent, name))]
    return count


def tidy_cache(folder: Path) -> None:
    """Removes what killed processes left in a folder that runs share; at most once an hour, since it may be large."""
    swept = folder / _SWEPT
    with contextlib.suppress(OSError):  # a cache that cannot be written is no error
        if swept.exists() and time.time() - swept.stat().st_mtime < _OLD_S:
            return
        folder.mkdir(parents=True, exist_ok=True)
        swept.touch()
        remove_leftovers(folder, _OLD_S)
