"""Paths with a protocol (`s3://`, `hf://`, `https://` …), through fsspec; local paths go past it.

Options and credentials come from the environment: each file system's own variables (AWS_…,
GOOGLE_…, HF_TOKEN) and fsspec's FSSPEC_<PROTOCOL>_<OPTION>. A recipe never holds them.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import zstandard

from raysandbox.core.errors import ConfigError, JobFailed, Problem
from raysandbox.core.keys import digest
from raysandbox.core.names import is_remote

__all__ = [
    "DAMAGED",
    "Listing",
    "RemoteFile",
    "compression_of",
    "list_remote",
    "open_path",
    "open_unpacked",
    "remote_stamps",
    "remove_remote",
    "unpacked_ratio",
    "upload",
]

# What unpacking a damaged file raises.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

_HEAD_BYTES = 1 << 18  # of a packed file, to see how far it unpacks
_LONGEST_REASON = 200  # characters of a store's own message
_WEB = ("http://", "https://")
# What file systems call the version of a file's content.
_VERSION_KEYS = ("ETag", "etag", "LastModified", "Last-Modified", "last_modified", "mtime", "created", "md5Hash", "sha")
# Stores in which an object appears whole once its upload ends, and where renaming means copying.
_WHOLE_OBJECTS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf", "oss", "memory")


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL.

    Attributes:
        path: its URL.
        size: bytes; 1 where a server does not tell, since a file of 0 need not be read.
        stamp: changes with the content; "" where the store tells no version.
        seekable: whether pieces of it can be read.
    """

    path: str
    size: int
    stamp: str
    seekable: bool = True


@dataclass(frozen=True)
class Listing:
    """What a path, folder or glob leads to."""

    kind: Literal["file", "folder", "matches"]
    files: tuple[RemoteFile, ...]


def compression_of(path: str) -> str | None:
    """The compression that a path's suffix names: "gzip", "zstd" or None."""
    return next((kind for suffix, kind in _COMPRESSIONS.items() if path.lower().endswith(suffix)), None)


def list_remote(url: str) -> Listing:
    """The files at a URL: itself, those below it, or those that match it, in order of their names.

    Raises:
        ConfigError: the protocol is unknown or its package missing, or the store cannot be read.
    """
    system, path = _file_system(url)
    try:
        if not url.endswith("/") and system.isfile(path):
            return Listing("file", (_described(system, path, system.info(path)),))
        if any(sign in path for sign in "*["):
            found = cast("Mapping[str, Any]", system.glob(path, detail=True))
            return Listing("matches", _all_described(system, found))
        found = cast("Mapping[str, Any]", system.find(path, detail=True))
        shown = {name: info for name, info in found.items() if not _is_hidden(name.removeprefix(path))}
        return Listing("folder" if shown else "matches", _all_described(system, shown))
    except FileNotFoundError:
        return Listing("matches", ())
    except Exception as error:  # every store raises errors of its own kind
        raise _unreachable(url, error) from error


def _all_described(system: Any, found: Mapping[str, Any]) -> tuple[RemoteFile, ...]:
    return tuple(_described(system, name, info) for name, info in sorted(found.items()) if info["type"] == "file")


def _is_hidden(below: str) -> bool:
    """Whether a file below a folder is hidden; equals what is skipped in local folders."""
    *folders, name = below.strip("/").split("/")
    return name[:1] in {".", "_"} or any(folder.startswith(".") for folder in folders)


def _described(system: Any, path: str, info: Mapping[str, Any]) -> RemoteFile:
    url = str(system.unstrip_protocol(path))
    versions = [str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None]
    stamp = digest([info["size"], versions]) if versions else ""
    seekable = not url.startswith(_WEB) or _serves_ranges(system, path)
    return RemoteFile(url, 1 if info["size"] is None else info["size"], stamp, seekable)


def _serves_ranges(system: Any, path: str) -> bool:
    """Whether a web server sends a piece of a file; many say nothing of it."""
    try:
        with system.open(path, "rb") as stream:
            stream.seek(1)
            stream.read(1)
    except ValueError:
        return False
    return True


def remote_stamps(url: str) -> list[list[Any]]:
    """Name, size and version of every file that a URL leads to; without a version always another."""
    return [[file.path, file.size, file.stamp or uuid.uuid4().hex] for file in list_remote(url).files]


def open_path(path: str, *, whole: bool = False) -> IO[bytes]:
    """Opens a local path or URL for reading bytes.

    Args:
        path: what to open.
        whole: it is read from start to end, which every web server serves.

    Raises:
        JobFailed: the store cannot be read.
    """
    if not is_remote(path):
        return open(path, "rb")
    system, inner = _file_system(path)
    try:
        if whole and path.startswith(_WEB):
            return io.BufferedReader(system.open(inner, "rb", block_size=0), 1 << 20)
        return cast("IO[bytes]", system.open(inner, "rb"))
    except Exception as error:  # every store raises errors of its own kind
        raise JobFailed(f"{path}: cannot be read: {_text(error)}") from error


@contextlib.contextmanager
def open_unpacked(path: str, compression: str | None) -> Iterator[IO[bytes]]:
    """Opens a file to read its content from the start, unpacked."""
    with open_path(path, whole=True) as stream:
        if compression == "gzip":
            with gzip.open(stream, "rb") as unpacked:
                yield cast("IO[bytes]", unpacked)
        elif compression == "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
            with io.BufferedReader(cast(Any, reader), 1 << 20) as unpacked:
                yield unpacked
        else:
            yield stream


def unpacked_ratio(path: str, compression: str) -> float:
    """Bytes of content per byte of a packed local file, from its beginning; 1 for a damaged one."""
    with open(path, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
    unpack = zlib.decompressobj(31) if compression == "gzip" else zstandard.ZstdDecompressor().decompressobj()
    try:
        return max(1.0, len(unpack.decompress(head)) / len(head))
    except DAMAGED:
        return 1.0  # whoever reads it says what is wrong


def upload(source: Path, url: str) -> None:
    """Writes a local file to a URL, where it appears whole.

    Stores of objects show an object once all of it has arrived. Elsewhere the file is sent under
    another name and then renamed.

    Raises:
        JobFailed: the store cannot be written.
    """
    system, path = _file_system(url)
    folder, _, name = path.rpartition("/")
    try:
        if url.partition("://")[0] in _WHOLE_OBJECTS:
            system.put_file(str(source), path)
            return
        system.makedirs(folder, exist_ok=True)
        arriving = f"{folder}/.tmp-{uuid.uuid4().hex[:8]}-{name}"
        system.put_file(str(source), arriving)
        system.mv(arriving, path)
    except Exception as error:  # every store raises errors of its own kind
        raise JobFailed(f"{url}: cannot be written: {_text(error)}") from error


def remove_remote(url: str) -> None:
    """Removes the file at a URL."""
    system, path = _file_system(url)
    system.rm_file(path)


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)
    except ImportError as error:
        raise _problem(url, _text(error), "pip install it into this environment") from None
    except ValueError as error:
        raise _problem(url, _text(error), "correct the path") from None


def _unreachable(url: str, error: Exception) -> ConfigError:
    return _problem(url, f"cannot be read: {_text(error)}", "correct the URL or its access")


def _problem(url: str, message: str, fix: str) -> ConfigError:
    return ConfigError([Problem(None, None, "", f"{url}: {message}", fix)])


def _text(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:_LONGEST_REASON]
    return f"{type(error).__name__}: {text}" if isinstance(error, OSError) or not text else text
