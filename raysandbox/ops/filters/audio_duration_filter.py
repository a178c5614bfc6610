"""Keeps rows by the length of their sounds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.media import audio_infos
from raysandbox.ops.media_filter import MediaFilter, numbers

__all__ = ["AudioDurationFilter"]


@register("audio_duration_filter")
class AudioDurationFilter(MediaFilter):
    """Keeps rows whose sounds have a length within a range."""

    reads: ClassVar[tuple[str, ...]] = ("audio",)
    example: ClassVar[Mapping[str, Any]] = {"min_duration": 1, "max_duration": 60}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("audio_duration", "min_duration", "max_duration", 0),)

    min_duration: float | None = Field(0, description="smallest length in seconds")
    max_duration: float | None = Field(sys.maxsize, description="largest length in seconds")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `audio_duration`, the decoded seconds of every sound."""
        return {"audio_duration": numbers(audio_infos(batch), lambda sound: sound.duration)}
