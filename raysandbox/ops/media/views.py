"""Views of a batch's media that its operators share."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from raysandbox.ops.batch import MEDIA_VIEW, Batch, FrameRequest, RowFaults
from raysandbox.ops.media import pictures
from raysandbox.ops.media.decoder import Fault, Job, decoder
from raysandbox.ops.media.types import AudioInfo, ImageInfo, MediaKind, VideoInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "audio_infos",
    "edited_videos",
    "file_lists",
    "file_sizes",
    "image_infos",
    "images",
    "map_videos",
    "stored_frames",
    "video_digests",
    "video_frames",
    "video_infos",
]

T = TypeVar("T")
Answers = Iterable[tuple[str, Any]]  # path and what was asked of it, or a Fault


@dataclass(frozen=True)
class _Known:
    """What is known of files; by path, so that it holds for any rows and any kind of media.

    Attributes:
        facts: by what was asked, then by path.
        faults: why a file cannot be used, by what it is used as, then by path.
    """

    facts: dict[Hashable, dict[str, Any]] = field(default_factory=dict)
    faults: dict[MediaKind, dict[str, str]] = field(default_factory=dict)

    def select_rows(self, keep: np.ndarray) -> _Known:
        """Itself."""
        return self

    def about(self, what: Hashable) -> dict[str, Any]:
        """What was found out about one question."""
        return self.facts.setdefault(what, {})


def file_lists(batch: Batch, kind: MediaKind) -> list[list[str]]:
    """The files that each row names; [] for a row without, and where the column is missing."""
    key = getattr(batch.keys, kind)
    if key not in batch.table.column_names:
        return [[] for _ in range(batch.num_rows)]
    return [files or [] for files in batch.table.column(key).to_pylist()]


def file_sizes(batch: Batch, kind: MediaKind) -> list[list[int]]:
    """Bytes of every file."""
    return _facts(batch, kind, "size", lambda paths: ((path, os.stat(path).st_size) for path in paths))


def image_infos(batch: Batch) -> list[list[ImageInfo]]:
    """Size of every image; it is read to its end, so that a damaged one is found, and not kept."""
    return _facts(batch, "image", "image info", partial(_in_process, pictures.info))


def images(batch: Batch) -> list[list[Image]]:
    """Every image in RGB, turned as its EXIF orientation says."""
    return _facts(batch, "image", "pixels", partial(_in_process, pictures.load))


def audio_infos(batch: Batch) -> list[list[AudioInfo]]:
    """Length of every sound."""
    return _facts(batch, "audio", "audio info", partial(_asked, batch, "audio_info"))


def video_infos(batch: Batch) -> list[list[VideoInfo]]:
    """What the container of every video says; nothing is decoded."""
    return _facts(batch, "video", "video info", partial(_asked, batch, "video_info"))


def video_digests(batch: Batch) -> list[list[str]]:
    """The MD5 of every video's compressed pictures, in hexadecimal; nothing is decoded."""
    return _facts(batch, "video", "digest", partial(_asked, batch, "video_digest"))


def video_frames(batch: Batch, request: FrameRequest) -> list[list[np.ndarray]]:
    """The frames of every video: uint8 of shape (n, H, W, 3) in RGB, or (n, H, W) where gray; (0,) where none are.

    Each video is decoded once for all of `Batch.requests`.
    """
    return _facts(batch, "video", request, partial(_frames, batch, request))


def map_videos(
    batch: Batch, request: FrameRequest, key: Hashable, function: Callable[[str, np.ndarray], T]
) -> list[list[T]]:
    """What `function` makes of the frames of every video, which are not kept.

    The next video is decoded meanwhile, and one video's frames at a time are in memory.

    Args:
        batch: the rows.
        request: which frames; an array as `video_frames` gives them.
        key: stands for everything that the function depends on; its values are kept under it.
        function: applied to the path and the frames of each distinct video.
    """

    def mapped(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for path, frames in _frames(batch, request, paths):
            yield path, frames if isinstance(frames, Fault) else function(path, frames)

    return _facts(batch, "video", (request, key), mapped)


def stored_frames(batch: Batch, column: str, request: FrameRequest, step: int) -> list[list[list[np.ndarray]]]:
    """Frames that stand in a column, per row and video a list of paths or of bytes, in grey.

    Args:
        batch: the rows.
        column: its name.
        request: size and form of the frames; without `size` and `max_size` they stay as they are.
        step: every how many-th frame to take.
    """
    if not (request.size or request.max_size):
        request = replace(request, divisible=1)
    found: list[list[list[np.ndarray]]] = []
    faults: dict[int, str] = {}
    for row, videos in enumerate(batch.table.column(column).to_pylist()):
        try:
            found.append([[pictures.grey(frame, request) for frame in video[::step]] for video in videos or []])
        except ValueError as error:
            faults[row] = f"{column}: {error}"
    if faults:
        raise RowFaults(faults)
    return found


def edited_videos(batch: Batch, edit: Callable[[str, VideoInfo], Job | None]) -> list[list[list[str]]]:
    """The files that a job of its own makes of every video.

    Args:
        batch: the rows.
        edit: the job for a video, which answers with paths; None leaves the video as it is.
    """
    infos = zip(chain(*file_lists(batch, "video")), chain(*video_infos(batch)), strict=True)
    jobs = {path: edit(path, info) for path, info in infos}

    def edited(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
        yield from ((path, [path]) for path in paths if jobs[path] is None)
        todo = {path: job for path in paths if (job := jobs[path])}
        yield from zip(todo, decoder().answers(list(todo.values()), batch.row_timeout_s), strict=True)

    return _facts(batch, "video", frozenset(jobs.values()), edited)


def _facts(
    batch: Batch, kind: MediaKind, what: Hashable, find_out: Callable[[Sequence[str]], Answers]
) -> list[list[Any]]:
    """One fact about every file of every row, found out about the files where it is not known yet.

    Raises:
        RowFaults: with all rows that have a file of which it cannot be known.
    """
    known: _Known = batch.view(MEDIA_VIEW, _Known)
    facts, faults, rows = known.about(what), known.faults.setdefault(kind, {}), file_lists(batch, kind)
    missing = [path for path in dict.fromkeys(chain(*rows)) if path not in facts and path not in faults]
    faults.update((path, fault) for path in missing if (fault := _unusable(path)))
    for path, answer in find_out([path for path in missing if path not in faults]):
        if isinstance(answer, Fault):
            faults[path] = answer.reason
        else:
            facts[path] = answer
    bad = {row: _reasons(faults, paths) for row, paths in enumerate(rows) if not faults.keys().isdisjoint(paths)}
    if bad:
        raise RowFaults(bad)
    return [[facts[path] for path in paths] for paths in rows]


def _unusable(path: str) -> str | None:
    """What is wrong with a file at first sight."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return str(error.strerror)
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"  # nobody may ever write to a pipe that is waited for
    return "is empty" if status.st_size == 0 else None


def _reasons(faults: Mapping[str, str], paths: Iterable[str]) -> str:
    faulty = [path for path in dict.fromkeys(paths) if path in faults]
    return "; ".join(f"{os.path.basename(path)}: {faults[path]}" for path in faulty)


def _in_process(read: Callable[[str], T | Fault], paths: Sequence[str]) -> Iterator[tuple[str, T | Fault]]:
    return ((path, read(path)) for path in paths)


def _asked(batch: Batch, name: str, paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
    jobs = [Job(name, path) for path in paths]
    return zip(paths, decoder().answers(jobs, batch.row_timeout_s), strict=True)


def _frames(batch: Batch, request: FrameRequest, paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray | Fault]]:
    """The frames of one request; those of the others that are still to come are kept."""
    known: _Known = batch.view(MEDIA_VIEW, _Known)
    kept = known.about(request)  # by an earlier operator's decode
    yield from ((path, kept[path]) for path in paths if path in kept)
    paths = [path for path in paths if path not in kept]
    jobs = [Job("video_frames", path, (_open_requests(known, batch.requests | {request}, path),)) for path in paths]
    for path, answer in zip(paths, decoder().answers(jobs, batch.row_timeout_s), strict=True):
        if isinstance(answer, Fault):
            yield path, answer
            continue
        for other, frames in answer.items():
            if other != request:
                known.about(other)[path] = frames
        yield path, answer[request]


def _open_requests(known: _Known, requests: Iterable[FrameRequest], path: str) -> list[FrameRequest]:
    return [request for request in requests if path not in known.about(request)]
