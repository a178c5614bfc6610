"""Runs a configuration again and again on a disk that is full at another place each time.

A program of its own, to be started with a mount namespace (`unshare -m`): the disk is a tmpfs. It prints one
JSON object per size of the disk.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from raysandbox.api import run
from raysandbox.core.errors import RunInterrupted, SandboxError

PAGE = 4096
ROOM = "50m"


def mount(folder: Path, size: str, *, again: bool = False) -> None:
    """Mounts an empty disk at a folder, or gives the one that is there another size."""
    options = f"remount,size={size}" if again else f"size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)


def results(work: Path) -> dict[str, Any]:
    """What a run is for: its outputs, without the numbers of the time that it took."""
    found: dict[str, Any] = {"context": json.loads((work / "context_infos.json").read_text())}
    for path in sorted((work / "out").rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found[str(path.relative_to(work))] = path.read_bytes().hex()
    return found


def leftovers(work: Path) -> list[str]:
    """Files that are no whole ones."""
    return sorted(str(path) for path in work.rglob(".tmp-*"))


def attempt(config: Path, *, resume: bool) -> str:
    """Runs; returns the error's text, "" for none. Errors that a user would see with a traceback go through."""
    try:
        run(config, resume=resume)
    except RunInterrupted:
        raise
    except SandboxError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def used(folder: Path) -> int:
    usage = os.statvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def sweep(config: Path, disk: Path, step: int, work: Path, cache: Path) -> Iterator[dict[str, Any]]:
    """Runs with every `step`-th number of pages on the disk, then with room; yields what was seen."""
    mount(disk, ROOM)
    undisturbed_error = attempt(config, resume=False)
    assert not undisturbed_error, undisturbed_error
    undisturbed, pages = results(work), used(disk) // PAGE
    unmount(disk)
    for size in count(1, step):
        for folder in (work, cache):
            for path in folder.iterdir() if folder.is_dir() and folder != disk else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        mount(disk, str(size * PAGE))
        error = attempt(config, resume=False)
        status = work / "status.json"
        state = json.loads(status.read_text())["state"] if status.exists() else None
        seen = {"pages": size, "of": pages, "error": error, "state": state, "left": leftovers(work)}
        mount(disk, ROOM, again=True)
        again = attempt(config, resume=True)
        yield {**seen, "again": again, "same": not again and results(work) == undisturbed}
        unmount(disk)
        if not error and size > pages:  # temporary files need more than what stays
            break


def main() -> None:
    config, disk, step, work, cache = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)
    for seen in sweep(Path(config), Path(disk), int(step), Path(work), Path(cache)):
        print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
