"""Keeps rows by the aspect ratio of their videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.media import Ratio, VideoInfo, video_infos
from raysandbox.ops.media_filter import MediaFilter, numbers

__all__ = ["VideoAspectRatioFilter"]


@register("video_aspect_ratio_filter")
class VideoAspectRatioFilter(MediaFilter):
    """Keeps rows whose videos have a width over height within a range."""

    reads: ClassVar[tuple[str, ...]] = ("video",)
    example: ClassVar[Mapping[str, Any]] = {"min_ratio": "9/16", "max_ratio": "16/9"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("video_aspect_ratios", "min_ratio", "max_ratio", 0),)

    min_ratio: Ratio = Field(9 / 21, description="smallest width over height: 9/21, 9:21 or a number")
    max_ratio: Ratio = Field(21 / 9, description="largest width over height: 21/9, 21:9 or a number")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `video_aspect_ratios`, width over height of every video."""
        return {"video_aspect_ratios": numbers(video_infos(batch), _ratio)}


def _ratio(video: VideoInfo) -> float:
    if not video.height:
        raise ValueError("the video does not say how high it is")
    return video.width / video.height
