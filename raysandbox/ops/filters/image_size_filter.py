"""Keeps rows by the size of their image files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.media import ByteSize, file_sizes
from raysandbox.ops.media_filter import MediaFilter, integers

__all__ = ["ImageSizeFilter"]


@register("image_size_filter")
class ImageSizeFilter(MediaFilter):
    """Keeps rows whose image files have a size within a range."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    example: ClassVar[Mapping[str, Any]] = {"min_size": "10KB", "max_size": "20MB"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("image_sizes", "min_size", "max_size", 0, integer=True),)

    min_size: ByteSize = Field(0, description="smallest size in bytes, or with a unit: 10KB")
    max_size: ByteSize = Field(1 << 40, description="largest size in bytes, or with a unit: 20MB; 1TB by default")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `image_sizes`, the bytes of every file."""
        return {"image_sizes": integers(file_sizes(batch, "image"), int)}
