"""Keeps rows by how likely their videos have a watermark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.model_filter import MIB, VideoModelFilter
from raysandbox.ops.pretrained import PictureScorer, load_classifier

__all__ = ["VideoWatermarkFilter"]


@register("video_watermark_filter")
class VideoWatermarkFilter(VideoModelFilter):
    """Keeps rows whose videos, any or all, are unlikely to have a watermark."""

    example: ClassVar[Mapping[str, Any]] = {"prob_threshold": 0.8, "any_or_all": "all"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("video_watermark_prob", None, "prob_threshold", 0, 1),)
    usual_memory: ClassVar[int] = 500 * MIB

    hf_watermark_model: ModelPath = Field(
        "amrul-hzz/watermark_detector",
        description="image classifier whose second class is the one with a watermark: folder or hub id",
    )
    prob_threshold: float | None = Field(0.8, description="largest probability of a watermark, 0 to 1")

    def load(self) -> PictureScorer:
        """Loads the classifier."""
        return load_classifier(self.source("hf_watermark_model"))
