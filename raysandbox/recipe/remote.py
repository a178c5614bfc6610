"""Paths with a protocol (`s3://`, `hf://`, `https://` …), through fsspec; local paths go past it.

Options and credentials come from the environment: each file system's own variables (AWS_…,
GOOGLE_…, HF_TOKEN) and fsspec's FSSPEC_<PROTOCOL>_<OPTION>. A recipe never holds them.
"""

from __future__ import annotations

import gzip
import io
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import zstandard

from raysandbox.core.errors import ConfigError, JobFailed, Problem
from raysandbox.core.keys import digest

__all__ = [
    "COMPRESSIONS",
    "Listing",
    "RemoteFile",
    "compression_of",
    "is_remote",
    "list_remote",
    "local_name",
    "open_path",
    "open_unpacked",
    "remote_stamps",
    "remove_remote",
    "upload",
]

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
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
        size: bytes.
        stamp: changes with the content; of its own every time where the store tells no version.
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


def is_remote(path: str) -> bool:
    """Whether a path has a protocol other than `file://`."""
    return _PROTOCOL.match(path) is not None and not path.startswith("file://")


def local_name(path: str) -> str:
    """A local path without `file://`."""
    return path.removeprefix("file://")


def compression_of(path: str) -> str | None:
    """ "gzip" or "zstd" by a path's suffix, None for a file that is not compressed."""
    return next((kind for suffix, kind in COMPRESSIONS.items() if path.lower().endswith(suffix)), None)


def list_remote(url: str) -> Listing:
    """The files at a URL: itself, those below it, or those that match it, in order of their names.

    Raises:
        ConfigError: the protocol is unknown or its package missing, or the store cannot be read.
    """
    system, path = _file_system(url)
    try:
        if not url.endswith("/") and system.isfile(path):
            return Listing("file", (_described(system, path, system.info(path)),))
        is_pattern = any(sign in path for sign in "*[")
        found = cast("Mapping[str, Any]", (system.glob if is_pattern else system.find)(path, detail=True))
    except FileNotFoundError:
        found, is_pattern = {}, True
    except Exception as error:  # each store raises its own kinds of errors
        raise _unreachable(url, error) from error
    folder = "" if is_pattern else path.rstrip("/")
    files = [_described(system, name, info) for name, info in sorted(found.items()) if info.get("type") == "file"]
    kept = [file for file in files if not _is_hidden(file.path.partition(folder)[2] if folder else file.path)]
    return Listing("matches" if is_pattern else "folder", tuple(kept))


def _is_hidden(name: str) -> bool:
    return any(part[:1] in {".", "_"} for part in name.split("/")[3:] if part) or name.rpartition("/")[2][:1] in "._"
