"""Brings videos to a range of sizes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.media import Job, VideoInfo, edited_videos, file_lists
from raysandbox.ops.media.derived import SOURCE_COLUMN, derived_path, with_lists

__all__ = ["VideoResizeResolutionMapper"]


@register("video_resize_resolution_mapper")
class VideoResizeResolutionMapper(Mapper):
    """Writes videos whose width or height is outside a range at a size within it; the sound is copied."""

    reads: ClassVar[tuple[str, ...]] = ("video",)
    changes_media: ClassVar[bool] = True
    extras: ClassVar[tuple[str, ...]] = ("media",)
    example: ClassVar[Mapping[str, Any]] = {"max_width": 1280, "force_original_aspect_ratio": "decrease"}

    min_width: int = Field(1, ge=1, description="smallest width in pixels")
    max_width: int = Field(sys.maxsize, ge=2, description="largest width in pixels")
    min_height: int = Field(1, ge=1, description="smallest height in pixels")
    max_height: int = Field(sys.maxsize, ge=2, description="largest height in pixels")
    force_original_aspect_ratio: Literal["disable", "decrease", "increase"] = Field(
        "disable", description="whether to keep the aspect ratio by a smaller or a larger size"
    )
    force_divisible_by: PositiveInt = Field(
        2, description="what width and height must be divisible by when the aspect ratio is kept; even"
    )
    save_dir: str | None = Field(None, description="folder of the new videos; by default beside the originals")

    @model_validator(mode="after")
    def _even(self) -> VideoResizeResolutionMapper:
        if self.force_original_aspect_ratio != "disable" and self.force_divisible_by % 2:
            raise ValueError("force_divisible_by must be even")
        return self

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with the new files in place of the old, which `__dj__source_file__` names."""
        files = edited_videos(batch, self._job)
        sources = with_lists(batch, SOURCE_COLUMN, file_lists(batch, "video"))
        return with_lists(sources, batch.keys.video, [list(chain(*row)) for row in files])

    def _job(self, path: str, video: VideoInfo) -> Job | None:
        width, height = video.width, video.height
        if self.min_width <= width <= self.max_width and self.min_height <= height <= self.max_height:
            return None
        if not (width and height):
            raise ValueError("the video does not say how large it is")
        target = derived_path(path, self.type_name, self.save_dir, self.model_dump(exclude={"save_dir"}))
        return Job("resize", path, (*self.target_size(width, height), target))

    def target_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a video is brought to, as Data-Juicer computes them."""
        ratio = width / height
        wide, high = float(width), float(height)
        if wide < self.min_width:
            wide, high = self.min_width, self.min_width / ratio
        if wide > self.max_width:
            wide, high = self.max_width, self.max_width / ratio
        if high < self.min_height:
            wide, high = self.min_height * ratio, self.min_height
        if high > self.max_height:
            wide, high = self.max_height * ratio, self.max_height
        step = 2 if self.force_original_aspect_ratio == "disable" else self.force_divisible_by
        wide = _into(wide, self.min_width, self.max_width, step)
        high = _into(high, self.min_height, self.max_height, step)
        too_narrow = wide / high < ratio
        if self.force_original_aspect_ratio != "disable":
            if too_narrow == (self.force_original_aspect_ratio == "increase"):
                wide = high * ratio
            else:
                high = wide / ratio
        return round(wide / step) * step, round(high / step) * step


def _into(value: float, low: int, high: int, step: int) -> float:
    """A multiple of `step` within bounds, where there is one."""
    rounded_up = math.ceil(int(max(value, low)) / step) * step
    return min(rounded_up, high) // step * step
