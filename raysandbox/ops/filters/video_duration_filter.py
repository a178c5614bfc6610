"""Keeps rows by the length of their videos."""

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
from raysandbox.ops.media_filter import MediaFilter, numbers

__all__ = ["VideoDurationFilter"]


@register("video_duration_filter")
class VideoDurationFilter(MediaFilter):
    """Keeps rows whose videos have a length within a range."""

    no_meaning_here: ClassVar[frozenset[str]] = MediaFilter.no_meaning_here | {"video_backend"}
    reads: ClassVar[tuple[str, ...]] = ("video",)
    example: ClassVar[Mapping[str, Any]] = {"min_duration": 2, "max_duration": 60}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("video_duration", "min_duration", "max_duration", 0),)

    min_duration: float | None = Field(0, description="smallest length in seconds")
    max_duration: float | None = Field(sys.maxsize, description="largest length in seconds")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `video_duration`, the seconds that every video's stream says it lasts."""
        return {"video_duration": numbers(video_infos(batch), lambda video: video.duration)}
