"""Views of a batch's media that its operators share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from raysandbox.ops.batch import Batch, FrameRequest
from raysandbox.ops.media.types import AudioInfo, ImageInfo, MediaKind, VideoInfo

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


def file_lists(batch: Batch, kind: MediaKind) -> list[list[str]]:
    """The files that each row names; [] for a row without, and where the column is missing."""
    key = getattr(batch.keys, kind)
    if key not in batch.table.column_names:
        return [[] for _ in range(batch.num_rows)]
    return [files or [] for files in batch.table.column(key).to_pylist()]


def file_sizes(batch: Batch, kind: MediaKind) -> list[list[int]]:
    """Bytes of every file."""
    raise NotImplementedError


def image_infos(batch: Batch) -> list[list[ImageInfo]]:
    """Size of every image."""
    raise NotImplementedError


def images(batch: Batch) -> list[list[Image]]:
    """Every image in RGB, turned as its EXIF orientation says."""
    raise NotImplementedError


def audio_infos(batch: Batch) -> list[list[AudioInfo]]:
    """Length of every sound."""
    raise NotImplementedError


def video_infos(batch: Batch) -> list[list[VideoInfo]]:
    """What the container of every video says; nothing is decoded."""
    raise NotImplementedError


def video_frames(batch: Batch, request: FrameRequest) -> list[list[np.ndarray]]:
    """The frames of every video: uint8 of shape (n, H, W, 3) in RGB, or (n, H, W) where gray.

    Each video is decoded once for all of `Batch.requests`.
    """
    raise NotImplementedError


def map_videos(
    batch: Batch, request: FrameRequest, key: Hashable, function: Callable[[np.ndarray], T]
) -> list[list[T]]:
    """What `function` makes of the frames of every video, which are not kept.

    The next video is decoded meanwhile, and one video's frames at a time are in memory.

    Args:
        batch: the rows.
        request: which frames; an array as `video_frames` gives them.
        key: stands for everything that the function depends on; its values are kept under it.
        function: applied to each distinct video.
    """
    raise NotImplementedError
