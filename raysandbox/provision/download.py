"""Transfers that go on where they ended: HTTP ranges, retries with growing pauses, nothing half-placed."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from raysandbox.core.errors import UserError
from raysandbox.core.files import atomic_write, remove
from raysandbox.core.keys import package_version
from raysandbox.core.progress import Progress

__all__ = ["Download", "DownloadError", "forget", "move"]

_CHUNK = 1 << 20
_MEGABYTE = 1e6
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE_S = 60.0
_SILENT_TRIES = 2  # where no server answers there is most often no network


class DownloadError(UserError):
    """A URL's content could not be brought.

    Attributes:
        unreachable: the server never answered.
    """

    unreachable: bool = False


class _Interrupted(Exception):
    """The transfer broke; trying again may help."""

    def __init__(self, reason: object, pause_s: float | None = None, *, answered: bool = False) -> None:
        super().__init__(str(reason))
        self.pause_s = pause_s
        self.answered = answered


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Refuses to leave https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DownloadError(f"{req.full_url} redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class Download:
    """One file to bring.

    Attributes:
        url: http, https or file.
        part: where its bytes are collected; beside it, what they are of, so that a later call goes on.
        size: bytes that it must have, if known.
        progress: receives the progress, in MB.
        tries: failures in a row, without a byte between them, after which it gives up.
        pause_s: before the second try; doubled each time.
        timeout_s: for a connection, and for a read.
    """

    url: str
    part: Path
    size: int | None
    progress: Progress
    tries: int = 4
    pause_s: float = 1.0
    timeout_s: float = 30.0

    @contextlib.contextmanager
    def brought(self) -> Iterator[None]:
        """Brings all of it; until the block ends no other process touches `part`.

        Raises:
            DownloadError: the server refuses, cannot be reached or offers another size.
        """
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https", "file"):
            raise DownloadError(f"{self.url}: only http, https and file URLs are fetched")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        with self.part.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DownloadError(f"another process fetches {self.part.name}") from error
            if not _stands_at(self.part, stream):  # renamed to its place between opening and locking
                raise DownloadError(f"another process fetched {self.part.name} just now")
            self.progress.begin(urllib.parse.urlsplit(self.url).path.rpartition("/")[2], self._total(), "MB")
            try:
                self._persist(stream)
                if not _length(stream):
                    raise DownloadError(f"{self.url}: 0 bytes")
                os.fsync(stream.fileno())
            finally:
                self.progress.end()
                if not _length(stream):
                    forget(self.part)
            yield

    def _total(self) -> float | None:
        return self.size / _MEGABYTE if self.size else None

    def _persist(self, stream: IO[bytes]) -> None:
        """Tries until it is whole; a try that brought bytes starts the count anew."""
        failures = 0
        while True:
            before = _length(stream)
            try:
                self._transfer(stream)
                return
            except _Interrupted as broken:
                failures = 1 if _length(stream) > before else failures + 1
                if failures >= (self.tries if broken.answered else min(self.tries, _SILENT_TRIES)):
                    error = DownloadError(f"{self.url}: {broken} ({failures} tries)")
                    error.unreachable = not broken.answered and not _length(stream)
                    raise error from broken
                time.sleep(min(broken.pause_s or self.pause_s * 2 ** (failures - 1), _LONGEST_PAUSE_S))

    def _transfer(self, stream: IO[bytes]) -> None:
        """One request: asks for what is missing and writes what comes.

        Raises:
            _Interrupted: it broke.
            DownloadError: trying again is of no use.
        """
        known = self._known()
        if not known:
            stream.truncate(0)
        offset = _length(stream)
        headers = {"User-Agent": f"raysandbox/{package_version()}", "Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": str(known["validator"])}
        opener = urllib.request.build_opener(_NoDowngrade)
        try:
            with opener.open(urllib.request.Request(self.url, headers=headers), timeout=self.timeout_s) as response:
                self._receive(response, stream, offset)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, stream, offset)
        except DownloadError:
            raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, FileNotFoundError):
                raise DownloadError(f"{self.url}: there is no such file") from error
            raise _Interrupted(error.reason) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(error, answered=True) from error

    def _receive(self, response: Any, stream: IO[bytes], offset: int) -> None:
        if response.status != 206:
            stream.truncate(0)  # the whole file comes: the server cannot do ranges, or the file is another one
            offset = 0
        elif not str(response.headers.get("Content-Range", "")).startswith(f"bytes {offset}-"):
            raise DownloadError(f"{self.url}: the server sent another range than it was asked for")
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else self.size
        if self.size is not None and total != self.size:
            raise DownloadError(f"{self.url} has {total} bytes; {self.size} are expected")
        self._check_room(total, offset)
        # An ETag that starts with W/ names equivalent, not equal bytes.
        tag = response.headers.get("ETag") or ""
        validator = response.headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        atomic_write(_notes(self.part), json.dumps({"url": self.url, "validator": validator}))
        self.progress.advance(offset / _MEGABYTE)
        while chunk := response.read(_CHUNK):
            _write(stream, chunk)
            self.progress.advance(len(chunk) / _MEGABYTE)
        if total is not None and _length(stream) != total:
            raise _Interrupted(f"the connection ended after {_length(stream)} of {total} bytes", answered=True)

    def _refused(self, error: urllib.error.HTTPError, stream: IO[bytes], offset: int) -> None:
        """What an error status means; returns when the file is complete already."""
        if error.code == 416 and offset and str(error.headers.get("Content-Range")) == f"bytes */{offset}":
            return
        if error.code == 416:
            stream.truncate(0)
            raise _Interrupted("the file changed", answered=True) from error
        if error.code in _RETRY_STATUS:
            wait = error.headers.get("Retry-After") or ""
            raise _Interrupted(error, float(wait) if wait.isdigit() else None, answered=True) from error
        raise DownloadError(f"{self.url}: {error}") from error

    def _known(self) -> Mapping[str, Any]:
        """What the bytes that are there are of; empty when they cannot be continued from this URL."""
        try:
            notes = json.loads(_notes(self.part).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        same = isinstance(notes, dict) and notes.get("url") == self.url and notes.get("validator")
        return notes if same else {}

    def _check_room(self, total: int | None, offset: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - offset > free:
            raise DownloadError(
                f"{self.part.parent} has {free / 1e9:.1f} GB left, {self.url} takes {total / 1e9:.1f} GB"
            )


def forget(part: Path) -> None:
    """Removes what a download collected."""
    remove(_notes(part))  # first: without the part another process may begin anew
    remove(part)


def move(part: Path, target: Path) -> None:
    """Puts what a download collected in its place."""
    remove(_notes(part))
    os.replace(part, target)


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _stands_at(path: Path, stream: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _length(stream: IO[bytes]) -> int:
    stream.flush()
    return os.fstat(stream.fileno()).st_size


def _write(stream: IO[bytes], chunk: bytes) -> None:
    try:
        stream.write(chunk)
    except OSError as error:  # of the disk, not of the network
        raise DownloadError(f"{stream.name}: {error}") from error
