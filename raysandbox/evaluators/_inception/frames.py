"""Windows of videos and images as pixels of one size; runs in a job's workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np

from raysandbox.core.errors import UserError

__all__ = ["Shape", "UnreadableFileError", "Window", "ahead", "clips", "frame_count"]

T = TypeVar("T")
_STALL_S = 300.0  # without a new batch of frames


class UnreadableFileError(UserError):
    """A file cannot be decoded."""


@dataclass(frozen=True)
class Window:
    """Frames of a file.

    Attributes:
        path: of the file.
        start: its first frame; None for an image.
    """

    path: str
    start: int | None


@dataclass(frozen=True)
class Shape:
    """What a window is made into.

    Attributes:
        frames: how many.
        stride: every how many-th frame is taken.
        height: in pixels.
        width: in pixels.
    """

    frames: int
    stride: int
    height: int
    width: int


def frame_count(path: str) -> int:
    """How many frames a video has, counted and not as its container says; nothing is decoded.

    Raises:
        UnreadableFileError: it is not a video, or damaged.
    """
    from raysandbox.ops.media.decoding import opened, timeline_of

    with _readable(), opened(path) as (container, stream):
        return len(timeline_of(container, stream))


def clips(windows: Sequence[Window], shape: Shape) -> Iterator[np.ndarray]:
    """The pixels of windows: uint8 of shape (frames, height, width, 3) in RGB.

    Windows of the same video that follow each other share one decode while their starts ascend.

    Raises:
        UnreadableFileError: a file cannot be decoded.
    """
    for path, group in groupby(windows, key=lambda window: window.path):
        starts = [window.start for window in group]
        with _readable(path):
            for part in _ascending([start for start in starts if start is not None]):
                yield from _of_video(path, part, shape)
            yield from (_of_image(path, shape) for start in starts if start is None)


def _ascending(starts: Sequence[int]) -> Iterator[list[int]]:
    """Starts cut where one descends: another row names the same video."""
    part: list[int] = []
    for start in starts:
        if part and start < part[-1]:
            yield part
            part = []
        part.append(start)
    if part:
        yield part


def _of_image(path: str, shape: Shape) -> np.ndarray:
    from raysandbox.ops.media.decoder import Fault
    from raysandbox.ops.media.pictures import load

    image = load(path)
    if isinstance(image, Fault):
        raise ValueError(image.reason)
    return _resized(np.asarray(image), shape)[None]


def _of_video(path: str, starts: Sequence[int], shape: Shape) -> Iterator[np.ndarray]:
    offsets = range(0, shape.frames * shape.stride, shape.stride)
    wanted = sorted({start + offset for start in starts for offset in offsets})
    held: dict[int, np.ndarray] = {}
    decoded = _decoded_frames(path, wanted, shape)
    for start in starts:
        held = {index: frame for index, frame in held.items() if index >= start}
        while start + offsets[-1] not in held:
            index, frame = next(decoded)
            held[index] = frame
        yield np.stack([held[start + offset] for offset in offsets])


def _decoded_frames(path: str, wanted: Sequence[int], shape: Shape) -> Iterator[tuple[int, np.ndarray]]:
    from raysandbox.ops.media.decoding import decoded, opened, timeline_of

    with opened(path) as (container, stream):
        for index, frame in decoded(container, stream, timeline_of(container, stream), wanted):
            yield index, _resized(frame.to_ndarray(format="rgb24"), shape)


def _resized(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Bicubic with a filter as wide as the reduction, so that fine detail does not alias."""
    from PIL import Image

    if pixels.shape[:2] == (shape.height, shape.width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((shape.width, shape.height), Image.Resampling.BICUBIC))


@contextlib.contextmanager
def _readable(path: str = "") -> Iterator[None]:
    """Turns what a damaged file makes FFmpeg and Pillow raise into one error."""
    from raysandbox.ops.media.decoding import UNREADABLE

    try:
        yield
    except UNREADABLE as error:
        reason = f"cannot be decoded: {getattr(error, 'strerror', None) or error}"
        raise UnreadableFileError(f"{path} {reason}".lstrip()) from error


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, each made in a thread while the one before it is worked on.

    Raises:
        UnreadableFileError: one is not there after minutes; a decode that hangs cannot be ended, but its process.
    """
    done = object()
    pool = ThreadPoolExecutor(1, "decoder")
    try:
        waiting = pool.submit(next, items, done)
        while True:
            try:
                item = waiting.result(_STALL_S)
            except TimeoutError as error:
                raise UnreadableFileError(f"decoding has stood still for {_STALL_S:g} s") from error
            if item is done:
                return
            waiting = pool.submit(next, items, done)
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=False)
