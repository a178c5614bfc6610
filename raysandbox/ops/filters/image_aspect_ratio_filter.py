"""Keeps rows by the aspect ratio of their images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.media import image_infos
from raysandbox.ops.media_filter import MediaFilter, numbers

__all__ = ["ImageAspectRatioFilter"]


@register("image_aspect_ratio_filter")
class ImageAspectRatioFilter(MediaFilter):
    """Keeps rows whose images have a width over height within a range."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    example: ClassVar[Mapping[str, Any]] = {"min_ratio": 0.5, "max_ratio": 2.0}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("aspect_ratios", "min_ratio", "max_ratio", 0),)

    min_ratio: float | None = Field(0.333, description="smallest width over height")
    max_ratio: float | None = Field(3.0, description="largest width over height")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `aspect_ratios`, width over height of every image."""
        return {"aspect_ratios": numbers(image_infos(batch), lambda image: image.width / image.height)}
