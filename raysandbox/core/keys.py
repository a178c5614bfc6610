"""Names of work by its content: digests of configurations, files and code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raysandbox.core.disk import dispensable
from raysandbox.core.files import read_object

__all__ = [
    "CODE_BESIDE",
    "DigestMemo",
    "FileStamps",
    "canonical_json",
    "code_version",
    "digest",
    "file_stamp",
    "library_versions",
    "package_version",
]


CODE_BESIDE = "__code_beside__"  # what a module is called that names the code it may import beside its file


def canonical_json(value: Any) -> str:
    """JSON with sorted keys: equal values give equal text. Other types raise TypeError."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of a JSON-like value; the order of mapping keys does not matter."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@cache
def package_version() -> str:
    """Version of the installed package."""
    try:
        return version("raysandbox")
    except PackageNotFoundError:
        return "0+unknown"


def _source_digest(module: str) -> str:
    """Hash of a module's file; another one each time for a notebook, whose cells change unseen."""
    beside = getattr(sys.modules.get(module), CODE_BESIDE, None)
    if beside is not None:
        return digest([_file_digest(module), beside])
    if module != "__main__":
        return _file_digest(module)
    path = getattr(sys.modules[module], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else uuid.uuid4().hex


@cache
def _file_digest(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not os.path.exists(spec.origin):
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def code_version(*definitions: type | Callable[..., Any] | str) -> str:
    """Package version and hash of the modules that define the classes and functions, or that are named."""
    modules = {each if isinstance(each, str) else each.__module__ for each in definitions}
    return digest([package_version(), sorted({_source_digest(module) for module in modules})])


def library_versions(*packages: str) -> dict[str, str | None]:
    """Versions of packages that results depend on, by name; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def file_stamp(path: str | Path) -> dict[str, int]:
    """What tells a file from another one that stood at its path; equal for all hard links to it.

    Raises:
        OSError: there is no file.
    """
    stat = os.stat(path)
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino, "device": stat.st_dev}


@dataclass(frozen=True)
class FileStamps:
    """What files were known by when they were looked at.

    Attributes:
        known: path, size, time of change and inode of each; a device has another number on another machine.
    """

    known: tuple[tuple[str, int, int, int], ...] = ()

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> FileStamps:
        """Those of files as they are now, each once.

        Raises:
            OSError: one is not there.
        """
        return cls(tuple(map(_seen, dict.fromkeys(map(str, paths)))))

    @property
    def changed(self) -> bool:
        """Whether a file was written, replaced or removed since."""
        try:
            return any(_seen(path) != (path, *rest) for path, *rest in self.known)
        except OSError:
            return True


def _seen(path: str) -> tuple[str, int, int, int]:
    stamp = file_stamp(path)
    return path, stamp["size"], stamp["mtime_ns"], stamp["inode"]


class DigestMemo:
    """Content digests of files and directories, memoised by the files' stamps.

    Args:
        folder: where the memo is kept, one small JSON file per path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, path: Path) -> str | None:
        """SHA-256 of a file's content, or of a directory's sorted (relative path, digest) pairs.

        Hidden files of a directory are notes about its content, not content. Returns None when nothing
        stands at the path.
        """
        if path.is_dir():
            names = sorted(str(item.relative_to(path)) for item in path.rglob("*") if item.is_file())
            shown = [name for name in names if not name.startswith(".") and "/." not in name]
            return digest([[name, self._file(path / name)] for name in shown])
        return self._file(path) if path.is_file() else None

    def _file(self, path: Path) -> str:
        memo, stamp = self._stamp(path)
        known = read_object(memo)
        if {key: known.get(key) for key in stamp} == stamp:
            return str(known["sha256"])
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        _write_memo(memo, {**stamp, "sha256": sha256})
        return sha256

    def note(self, path: Path, sha256: str) -> None:
        """Remembers the digest of a file that was just linked to one whose digest is known."""
        memo, stamp = self._stamp(path)
        _write_memo(memo, {**stamp, "sha256": sha256})

    def _stamp(self, path: Path) -> tuple[Path, dict[str, Any]]:
        """Where a file's digest is noted, and what it holds for."""
        stamp = {"path": str(path.resolve()), **file_stamp(path)}
        return self._folder / f"{digest(stamp['path'])}.json", stamp


def _write_memo(memo: Path, content: Mapping[str, Any]) -> None:
    """Puts a memo in place, if it can be; not flushed to disk, since a torn one counts as absent."""
    temporary = memo.with_name(f".{uuid.uuid4().hex}")
    with dispensable("the memo of digests", memo.parent):
        try:
            memo.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content))
            os.replace(temporary, memo)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
