"""Brings model files to their places: from mirrors first, checked before they appear."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from raysandbox.core.errors import UserError
from raysandbox.core.files import atomic_dir, atomic_path
from raysandbox.core.progress import Progress
from raysandbox.provision.download import Download, DownloadError, forget, move
from raysandbox.provision.weights import DAMAGE, WeightFile, content_fault

__all__ = ["Fetcher", "mirrors_of_environment"]

MIRROR_VARIABLE = "RAYSANDBOX_WEIGHTS_MIRROR"


def mirrors_of_environment() -> list[str]:
    """The base URLs in `RAYSANDBOX_WEIGHTS_MIRROR`, separated by commas or spaces."""
    return [url for url in re.split(r"[,\s]+", os.environ.get(MIRROR_VARIABLE, "")) if url]


@dataclass
class Fetcher:
    """Fetches files; remembers which servers do not answer.

    Attributes:
        mirrors: base URLs, asked before the files' own; they hold `COMPONENT/NAME`, folders as `NAME.zip`.
        progress: receives the progress.
        pause_s: before the second try of a transfer.
    """

    mirrors: Sequence[str] = ()
    progress: Progress = field(default_factory=Progress)
    pause_s: float = 1.0
    _silent: set[str] = field(default_factory=set)

    def fetch(self, file: WeightFile) -> Path:
        """Brings a file to its place; a bad one that stands there is replaced.

        Raises:
            UserError: no source gave it; the message names what each said.
        """
        reasons = []
        for url, is_archive in self._sources(file):
            server = urllib.parse.urlsplit(url).netloc
            if server in self._silent:
                reasons.append(f"{server} does not answer")
                continue
            part = file.target().with_name(f".{file.target().name}{'.archive' if is_archive else ''}.part")
            try:
                size = None if is_archive else file.size
                with Download(url, part, size, self.progress, pause_s=self.pause_s).brought():
                    _place_or_forget(file, part, is_archive)
                return file.target()
            except DownloadError as error:
                reasons.append(str(error))
                if error.unreachable:
                    self._silent.add(server)
            except _BadContentError as error:
                reasons.append(f"{url}: {error}")
            except OSError as error:  # of the disk: another source does not help
                raise UserError(f"{file.target()} cannot be written: {error}") from error
        raise UserError(f"{file.name}: " + ("; ".join(reasons) or "no source is known"))

    def _sources(self, file: WeightFile) -> Iterator[tuple[str, bool]]:
        """URLs in the order to try, with whether each gives an archive."""
        is_folder = bool(file.holds)
        for mirror in self.mirrors:
            path = urllib.parse.quote(f"{file.component}/{file.name}{'.zip' if is_folder else ''}")
            yield f"{mirror.rstrip('/')}/{path}", is_folder
        for url in file.urls:
            yield url, is_folder or file.member is not None


_EXPANSION, _ALWAYS_TAKEN = 20, 1 << 30  # an archive of weights hardly shrinks; one of ten zeros a byte is a trap


class _BadContentError(Exception):
    """What came is not what it should be."""


def _place_or_forget(file: WeightFile, part: Path, is_archive: bool) -> None:
    try:
        _place(file, part, is_archive)
    except _BadContentError:
        forget(part)
        raise


def _place(file: WeightFile, part: Path, is_archive: bool) -> None:
    """Checks what came and puts it where it belongs, by rename.

    Raises:
        _BadContentError: it is not the file.
    """
    if not is_archive:
        _check(file, part)
        move(part, file.target())
        return
    if file.holds:
        with atomic_dir(file.target()) as folder:
            _unpack(part, folder)
            absent = [pattern for pattern in file.holds if not any(folder.glob(pattern))]
            if absent:
                raise _BadContentError(f"the archive lacks {', '.join(absent)}")
    else:
        with atomic_path(file.target()) as temporary:
            _extract(part, str(file.member), temporary)
            _check(file, temporary)
    forget(part)


def _check(file: WeightFile, path: Path) -> None:
    size = path.stat().st_size
    if not size or (file.size is not None and size != file.size):
        raise _BadContentError(f"{size} bytes" + (f" instead of {file.size}" if file.size else ""))
    fault = content_fault(file, path)
    if fault:
        raise _BadContentError(fault)


@contextlib.contextmanager
def _opened(archive: Path, wanted: str) -> Iterator[zipfile.ZipFile]:
    """Opens an archive; whatever damage shows when it is read means that it is not the wanted one."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except (*DAMAGE, LookupError) as error:
        raise _BadContentError(f"no {wanted} ({str(error) or type(error).__name__})") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # of the disk, not of a codec or a bad offset
            raise
        raise _BadContentError(f"no {wanted} ({error})") from error


def _extract(archive: Path, member: str, target: Path) -> None:
    with (
        _opened(archive, f"archive that holds {member}") as opened,
        opened.open(member) as source,
        target.open("wb") as copy,
    ):
        _check_unpacked_size(archive, [opened.getinfo(member)])
        shutil.copyfileobj(source, copy)


def _check_unpacked_size(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuses an archive that would fill the disk; of no member more bytes are read than it says to have."""
    size, limit = sum(member.file_size for member in members), _EXPANSION * archive.stat().st_size + _ALWAYS_TAKEN
    if size > limit:
        raise _BadContentError(
            f"unpacked it would have {size:,} bytes, more than {limit:,}: {_EXPANSION} times the archive's and 1 GiB"
        )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive of one folder, without that folder; refuses paths that lead outside."""
    with _opened(archive, "archive") as opened:
        _check_unpacked_size(archive, opened.infolist())
        names = [PurePosixPath(info.filename) for info in opened.infolist() if not info.is_dir()]
        tops = {name.parts[0] for name in names}
        nested = len(tops) == 1 and all(len(name.parts) > 1 for name in names)
        for name in names:
            inner = PurePosixPath(*name.parts[1:]) if nested else name
            if name.is_absolute() or ".." in name.parts:
                raise _BadContentError(f"the archive holds {name}, which leads outside")
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(str(name)) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
