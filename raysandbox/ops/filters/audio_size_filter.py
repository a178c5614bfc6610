"""Keeps rows by the size of their sound files."""

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

__all__ = ["AudioSizeFilter"]


@register("audio_size_filter")
class AudioSizeFilter(MediaFilter):
    """Keeps rows whose sound files have a size within a range."""

    reads: ClassVar[tuple[str, ...]] = ("audio",)
    example: ClassVar[Mapping[str, Any]] = {"min_size": "10KB", "max_size": "20MB"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("audio_sizes", "min_size", "max_size", 0, integer=True),)

    min_size: ByteSize = Field(0, description="smallest size in bytes, or with a unit: 10KB")
    max_size: ByteSize = Field(1 << 40, description="largest size in bytes, or with a unit: 20MB; 1TB by default")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `audio_sizes`, the bytes of every file."""
        return {"audio_sizes": integers(file_sizes(batch, "audio"), int)}
