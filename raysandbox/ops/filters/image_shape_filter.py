"""Keeps rows by the width and height of their images."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.media import image_infos
from raysandbox.ops.media_filter import MediaFilter, integers

__all__ = ["ImageShapeFilter"]


@register("image_shape_filter")
class ImageShapeFilter(MediaFilter):
    """Keeps rows whose images have a width and a height within ranges."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    example: ClassVar[Mapping[str, Any]] = {"min_width": 200, "min_height": 200}
    stats: ClassVar[tuple[Stat, ...]] = (
        Stat("image_width", "min_width", "max_width", 1, integer=True),
        Stat("image_height", "min_height", "max_height", 1, integer=True),
    )

    min_width: int | None = Field(1, description="smallest width in pixels")
    max_width: int | None = Field(sys.maxsize, description="largest width in pixels")
    min_height: int | None = Field(1, description="smallest height in pixels")
    max_height: int | None = Field(sys.maxsize, description="largest height in pixels")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `image_width` and `image_height` of every image."""
        infos = image_infos(batch)
        return {
            "image_width": integers(infos, lambda image: image.width),
            "image_height": integers(infos, lambda image: image.height),
        }
