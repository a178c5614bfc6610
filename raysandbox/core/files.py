"""Files that appear whole or not at all, and where relative paths start."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raysandbox.core.disk import writes

__all__ = ["atomic_dir", "atomic_path", "atomic_write", "cache_dir", "link_or_copy", "read_object", "remove"]


def _temporary(target: Path) -> Path:
    # Same directory, so that the rename stays on one file system; the suffixes stay, since
    # writers choose their format by them.
    return target.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}-{target.name}")


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target` that is renamed over it when the block succeeds.

    The data is flushed to disk before the rename; on an error the temporary file is removed and
    whatever stood at `target` stays.

    Raises:
        WriteFailed: the disk is full or read-only.
    """
    temporary = _temporary(target)
    try:
        with writes(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _fsync(temporary)
            os.replace(temporary, target)
    finally:
        remove(temporary)


@contextlib.contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """Like `atomic_path` for a directory; an earlier directory at `target` is replaced."""
    temporary = _temporary(target)
    try:
        with writes(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            remove(target)
            os.replace(temporary, target)
    finally:
        remove(temporary)


def atomic_write(target: Path, text: str) -> None:
    """Writes UTF-8 text so that readers see the old or the new content, never a part."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of state; {} where there is no file, or a damaged one: what it says is found anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remove(path: Path) -> None:
    """Removes a file or a tree, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` stand with the content of `source`: hard links where possible."""
    if source.is_dir():
        with atomic_dir(target) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True, copy_function=_link)
    else:
        with atomic_path(target) as temporary:
            _link(str(source), str(temporary))


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_dir(configured: str | None = None) -> Path:
    """What runs share: the `cache_dir` of a configuration, else `~/.cache/raysandbox`."""
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "raysandbox"
