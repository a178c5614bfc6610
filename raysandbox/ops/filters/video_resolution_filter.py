"""Keeps rows by the width and height of their videos."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.media import video_infos
from raysandbox.ops.media_filter import MediaFilter, integers

__all__ = ["VideoResolutionFilter"]


@register("video_resolution_filter")
class VideoResolutionFilter(MediaFilter):
    """Keeps rows whose videos have a width and a height within ranges."""

    reads: ClassVar[tuple[str, ...]] = ("video",)
    example: ClassVar[Mapping[str, Any]] = {"min_width": 480, "min_height": 360}
    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("video_width", "min_width", "max_width", 1, integer=True),
        Stat("video_height", "min_height", "max_height", 1, integer=True),
    )

    min_width: int | None = Field(1, description="smallest width in pixels")
    max_width: int | None = Field(sys.maxsize, description="largest width in pixels")
    min_height: int | None = Field(1, description="smallest height in pixels")
    max_height: int | None = Field(sys.maxsize, description="largest height in pixels")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `video_width` and `video_height` of every video."""
        infos = video_infos(batch)
        return {
            "video_width": integers(infos, lambda video: video.width),
            "video_height": integers(infos, lambda video: video.height),
        }
