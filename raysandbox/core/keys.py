"""Names of work by its content: digests of configurations, files and code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import threading
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import Any

from raysandbox.core.disk import dispensable

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


_TABLES = 64  # folders whose memos stay in memory
_WRITTEN_TOGETHER = 10_000  # lines of a memo
_quoted = json.encoder.encode_basestring_ascii
_BEFORE_DIGEST, _LINE_END = b', "', b'"]\n'
_TAIL = 64 + len(_LINE_END)  # of a line: its digest and end

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
    """Content digests of files and directories, memoised by the files' stamps. Safe in threads and processes.

    Args:
        folder: where the memo is kept: for each folder of files a file of lines, appended. A line is the JSON list
            of name, size, mtime_ns, inode and device, and the digest; a torn one is no file's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._tables: OrderedDict[str, _Table] = OrderedDict()

    def __reduce__(self) -> tuple[type[DigestMemo], tuple[Path]]:
        return DigestMemo, (self._folder,)

    def of(self, path: Path) -> str | None:
        """SHA-256 of a file's content, or of a directory's sorted (relative path, digest) pairs.

        Hidden files of a directory are notes about its content, not content. Returns None when nothing
        stands at the path.
        """
        if not path.is_dir():
            return next(self.of_files([path]))
        names = sorted(_shown_files(path))
        found = zip(names, self.of_files(f"{path}/{name}" for name in names), strict=True)
        return digest([pair for pair in found if pair[1] is not None])

    def of_files(self, paths: Iterable[str | Path]) -> Iterator[str | None]:
        """SHA-256 of the content of each file; None where no file stands.

        Files of one folder should follow each other: what is known of a folder is read as a whole.
        """
        real: dict[str, str] = {}  # folders that were met → where they are
        last, table = "", None  # the folder of the file before, and its memo
        with _NewLines() as new:
            for path in paths:
                file, stat = _standing(os.fspath(path))
                if stat is None:
                    yield None
                    continue
                folder, slash, name = file.rpartition("/")
                if table is None or folder != last:
                    if folder not in real:
                        real[folder] = os.path.realpath(folder or slash)
                    last, table = folder, self._table(real[folder])
                head = _head(name, stat)
                sha256 = table.find(head)
                if sha256 is None:
                    with open(file, "rb") as content:
                        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
                    new.add(table, head, sha256)
                yield sha256

    def note(self, path: Path, sha256: str) -> None:
        """Remembers the digest of a file that was just linked to one whose digest is known."""
        file, stat = _standing(os.path.realpath(path))
        if stat is not None:
            folder, name = os.path.split(file)
            with _NewLines() as new:
                new.add(self._table(folder), _head(name, stat), sha256)

    def _table(self, folder: str) -> _Table:
        with self._lock:
            table = self._tables.pop(folder, None) or _Table(self._folder / f"{digest(folder)}.jsonl")
            self._tables[folder] = table
            while len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
            return table


class _Table:
    """What is known of the files of one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[bytes, bytes] = {}  # a line's beginning → its digest
        self._read = 0

    def find(self, head: bytes) -> str | None:
        """The digest of the file that a line would begin with `head` for; reads what others wrote since."""
        if head not in self._known:
            self._catch_up()
        found = self._known.get(head)
        return None if found is None else found.hex()

    def add(self, head: bytes, sha256: str) -> bytes:
        """Notes a digest; returns its line."""
        self._known[head] = bytes.fromhex(sha256)
        return head + sha256.encode() + _LINE_END

    def _catch_up(self) -> None:
        read = self._read  # several threads may be here: what one reads twice is the same
        try:
            if self.path.stat().st_size <= read:
                return
            with self.path.open("rb") as file:
                file.seek(read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # torn, or just being written
                    read += len(line)
                    with suppress(ValueError):
                        self._known[line[:-_TAIL]] = bytes.fromhex(line[-_TAIL : -len(_LINE_END)].decode())
            self._read = read
        except OSError:
            return


class _NewLines:
    """Lines for memos, written together: not flushed to disk, since a torn one counts as absent."""

    def __init__(self) -> None:
        self._lines: defaultdict[Path, list[bytes]] = defaultdict(list)
        self._count = 0

    def __enter__(self) -> _NewLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def add(self, table: _Table, head: bytes, sha256: str) -> None:
        """Notes the digest of a file."""
        self._lines[table.path].append(table.add(head, sha256))
        self._count += 1
        if self._count >= _WRITTEN_TOGETHER:
            self._write()

    def _write(self) -> None:
        for path, lines in self._lines.items():
            with dispensable("the memo of digests", path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab", buffering=0) as file:
                    file.write(b"".join(lines))
        self._lines.clear()
        self._count = 0


def _head(name: str, stat: os.stat_result) -> bytes:
    """The beginning of the line of a file as it is now: JSON, put together here since millions are asked for."""
    numbers = f", {stat.st_size}, {stat.st_mtime_ns}, {stat.st_ino}, {stat.st_dev}"
    return b"[" + _quoted(name).encode() + numbers.encode() + _BEFORE_DIGEST


def _standing(path: str) -> tuple[str, os.stat_result | None]:
    """The path of a regular file, or of what a link to one names, and its status; None where there is none."""
    try:
        stat = os.lstat(path)
        if S_ISLNK(stat.st_mode):
            path = os.path.realpath(path)
            stat = os.stat(path)
    except OSError:
        return path, None
    return path, stat if S_ISREG(stat.st_mode) else None


def _shown_files(folder: Path) -> Iterator[str]:
    """Paths of what is below a folder, without folders and what is hidden."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        start = os.path.relpath(root, folder)
        for name in names:
            if not name.startswith("."):
                yield name if start == os.curdir else f"{start}/{name}"
