"""A training writes beside its work_dir and moves in when it has finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_write, read_object, remove

__all__ = ["MARKER", "staged"]

MARKER = "training.json"


@contextmanager
def staged(work_dir: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields an empty directory `<work_dir>.partial` and a summary for the block to fill.

    When the block succeeds, what an earlier training left in `work_dir` goes, the new files move
    in and the marker `training.json`, which holds the summary and names the files, comes last: a
    work_dir with a marker is complete. Files that are not a training's stay, since the original's
    configurations share a work_dir with the processed data. When the block fails or the process is
    killed, `work_dir` is untouched, and the partial directory with its logs stays until the next
    attempt.
    """
    partial = work_dir.with_name(f"{work_dir.name}.partial")
    remove(partial)
    partial.mkdir(parents=True)
    summary: dict[str, Any] = {}
    yield partial, summary
    _clear_earlier(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    entries = sorted(entry.name for entry in partial.iterdir())
    for name in entries:
        remove(work_dir / name)
        os.replace(partial / name, work_dir / name)
    atomic_write(work_dir / MARKER, json.dumps({**summary, "files": entries}, indent=2) + "\n")
    partial.rmdir()


def _clear_earlier(work_dir: Path) -> None:
    marker = work_dir / MARKER
    if marker.is_file():
        files = read_object(marker).get("files")  # a damaged marker names none: what is there is replaced by name
        marker.unlink()
        for name in files if isinstance(files, list) else ():
            remove(work_dir / str(name))
