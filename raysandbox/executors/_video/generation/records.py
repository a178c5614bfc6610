"""What of a generation is done: records of videos beside them, so that none is made twice.

A worker writes a video under a temporary name, then a record with its key and digest, and then renames
the video into place; video and record are on disk before the next step. A video counts as done if there
is a record of it with the key that is wanted now and the file is still what the record says. So whatever
is killed at whatever time, nothing finished is made again, and nothing torn, altered or outdated is kept.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import orjson

from raysandbox.core.errors import UserError
from raysandbox.core.files import atomic_write
from raysandbox.executors._video.generation.units import VideoUnit

__all__ = ["Record", "VideoCache", "VideoFolder"]

_NOTES = ".records"  # hidden: no part of the output's content, and nothing that evaluators look at
_TEMPORARY = "tmp-"
_SHOWN = 3  # names in a message
_KEPT_S = 7 * 24 * 3600.0  # after its last run is gone


class Record(NamedTuple):
    """A video that was made.

    Attributes:
        key: what it was made from (`VideoUnit.key`).
        file: its name.
        sha256: of its bytes.
        bytes: their number.
        mtime_ns: when they were written; while it and the size are the same, the file is not read again.
        frames: how many it has.
        seconds: how long it took.
    """

    key: str
    file: str
    sha256: str
    bytes: int
    mtime_ns: int
    frames: int
    seconds: float

    def describes(self, path: Path) -> bool:
        """Whether the file is what was recorded."""
        try:
            return self.fits(path, path.stat())
        except OSError:
            return False

    def fits(self, path: Path | str, stat: os.stat_result) -> bool:
        """Whether the file with this status is what was recorded; it is read where the time differs.

        Raises:
            OSError: it cannot be read.
        """
        if stat.st_size != self.bytes:
            return False
        return stat.st_mtime_ns == self.mtime_ns or _sha256(path) == self.sha256


_FIELDS = itemgetter(*Record._fields)


@dataclass
class VideoFolder:
    """A folder of videos with its records; each process that writes has a file of records of its own.

    Attributes:
        path: the folder.
        removed: names of finished videos that are not wanted any more, and were removed.
    """

    path: Path
    removed: list[str] = field(default_factory=list, repr=False)
    _log: int | None = field(default=None, repr=False)

    def add(self, unit: VideoUnit, write: Callable[[Path], tuple[int, float]]) -> Record:
        """Puts a video in place with its record.

        Args:
            unit: what the video is of.
            write: writes it to a path, to the disk, and returns its number of frames and the seconds it took.
        """
        notes = self.path / _NOTES
        notes.mkdir(parents=True, exist_ok=True)
        temporary = notes / f"{_TEMPORARY}{unit.key[:16]}-{uuid.uuid4().hex[:8]}.mp4"
        try:
            frames, seconds = write(temporary)
            stat = temporary.stat()
            record = Record(
                unit.key, unit.file, _sha256(temporary), stat.st_size, stat.st_mtime_ns, frames, round(seconds, 3)
            )
            self._append(record)
            os.replace(temporary, self.path / unit.file)
        finally:
            temporary.unlink(missing_ok=True)
        return record

    def adopt(self, unit: VideoUnit, video: Path, record: Record) -> Record | None:
        """Puts a finished video in place by a hard link; None where the file system cannot."""

        def link(temporary: Path) -> tuple[int, float]:
            os.link(video, temporary)
            return record.frames, record.seconds

        try:
            return self.add(unit, link)
        except OSError:
            return None

    def finished(self, units: Sequence[VideoUnit]) -> dict[str, Record]:
        """The records of finished units, by file.

        What dead workers left unfinished is removed, so are videos of ours that are not wanted any more,
        or not as they are: who scores a folder scores all that is in it. Other files stay.

        Raises:
            UserError: a file that is not ours has the name of a video.
        """
        with _without_collecting():
            return self._finished(units)

    def _finished(self, units: Sequence[VideoUnit]) -> dict[str, Record]:
        self._remove_unfinished()
        records = self._records()
        wanted = {unit.file: unit.key for unit in units}
        lacking = wanted.keys() - records.keys()
        foreign = lacking.intersection(self._names()) if lacking else ()
        if foreign:
            shown = ", ".join(repr(name) for name in sorted(foreign)[:_SHOWN])
            raise UserError(
                f"output_dir: {self.path} holds {len(foreign)} files with names of videos that are to be made, but "
                f"which were not made here as far as {self.path / _NOTES} tells ({shown}): move them away, or choose "
                f"another folder"
            )
        folder, found = str(self.path), dict[str, Record]()
        for name, of_file in records.items():
            standing = _standing(f"{folder}/{name}", of_file)
            key = wanted.get(name)
            for record in standing:
                if record.key == key:
                    found[name] = record
            if standing and name not in found:
                (self.path / name).unlink()
                self.removed.append(name)
            # else it is gone or altered, and made again if it is wanted
        return found

    def close(self) -> None:
        """Closes this process's file of records."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _append(self, record: Record) -> None:
        if self._log is None:
            name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
            self._log = os.open(self.path / _NOTES / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
        line = _as_json(record).encode() + b"\n"
        while line:  # a full disk or a signal may cut a write short
            line = line[os.write(self._log, line) :]
        os.fsync(self._log)

    def _remove_unfinished(self) -> None:
        for path in (self.path / _NOTES).glob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        """Names of all files, by one listing: to ask for each of a million videos takes a million calls."""
        return os.listdir(self.path) if self.path.is_dir() else []

    def _records(self) -> dict[str, list[Record]]:
        """All records by file, those of one process in the order in which it wrote them."""
        found: dict[str, list[Record]] = {}
        for path in sorted((self.path / _NOTES).glob("*.jsonl")):
            for record in _read(path):
                found.setdefault(record.file, []).append(record)
        return found


class VideoCache:
    """Finished videos by key, as further names (hard links) of the files that runs made.

    They take no room while the files themselves stand, and there are none across file systems. What no
    run holds any more is removed some days later (see `prune`).

    Args:
        folder: where they lie.
        readable: whether what earlier runs left counts.
    """

    def __init__(self, folder: Path, *, readable: bool = True) -> None:
        self._folder = folder
        self._readable = readable

    def get(self, key: str) -> tuple[Path, Record] | None:
        """A video and its record; None if there is none, or it was altered through its other name."""
        if not self._readable:
            return None
        video, note = self._paths(key)
        try:
            record = Record(**json.loads(note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return (video, record) if record.key == key and record.describes(video) else None

    def put(self, video: Path, record: Record) -> None:
        """Keeps a video that was made, if the file system can."""
        kept, note = self._paths(record.key)
        temporary = kept.with_suffix(f".{uuid.uuid4().hex[:8]}")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.link(video, temporary)
            os.replace(temporary, kept)
            atomic_write(note, _as_json(record))
        except OSError:
            return  # another file system, or one without links
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)  # stays where both were names of one file already

    def prune(self, keys: Iterable[str]) -> int:
        """Removes what lost its last other name a week ago or more; returns how many videos.

        Args:
            keys: their neighbours are looked at, so that it costs no more than what was generated.
        """
        before, removed = time.time() - _KEPT_S, 0
        for folder in sorted({self._paths(key)[0].parent for key in keys}):
            for file in sorted(folder.glob("*"), key=lambda file: file.suffix != ".mp4"):  # then what was beside it
                with contextlib.suppress(OSError):  # another run prunes too
                    stat = file.stat()
                    if file.suffix == ".mp4":
                        unused = stat.st_nlink == 1
                    else:
                        unused = file.suffix != ".json" or not file.with_suffix(".mp4").exists()
                    if unused and stat.st_ctime < before:  # the time when the number of names changed last
                        file.unlink()
                        removed += file.suffix == ".mp4"
        return removed

    def _paths(self, key: str) -> tuple[Path, Path]:
        base = self._folder / key[:2] / key
        return base.with_suffix(".mp4"), base.with_suffix(".json")


def _read(path: Path) -> Iterator[Record]:
    """The records of a file; a torn last line is passed over."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield Record._make(_FIELDS(orjson.loads(line)))
            except (ValueError, TypeError, KeyError):
                continue


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Keeps Python from looking for cycles among a million records, again and again while they are read."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _standing(path: str, records: Sequence[Record]) -> Sequence[Record]:
    """The records that a file fits."""
    try:
        stat = os.stat(path)
        return [record for record in records if record.fits(path, stat)]
    except OSError:
        return ()


def _as_json(record: Record) -> str:
    return json.dumps(record._asdict(), ensure_ascii=False)


def _sha256(path: Path | str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
