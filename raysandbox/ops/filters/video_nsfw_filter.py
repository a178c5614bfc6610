"""Keeps rows by how indecent their videos are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.model_filter import GIB, VideoModelFilter
from raysandbox.ops.pretrained import PictureScorer, load_classifier

__all__ = ["VideoNSFWFilter"]


@register("video_nsfw_filter")
class VideoNSFWFilter(VideoModelFilter):
    """Keeps rows whose videos, any or all, have a score of indecency within a range."""

    example: ClassVar[Mapping[str, Any]] = {"max_score": 0.5, "any_or_all": "all"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("video_nsfw_score", "min_score", "max_score", 0, 1),)
    usual_memory: ClassVar[int] = GIB
    no_meaning_here: ClassVar[frozenset[str]] = VideoModelFilter.no_meaning_here | {"video_backend"}

    hf_nsfw_model: ModelPath = Field(
        "Falconsai/nsfw_image_detection",
        description="image classifier whose second class is the indecent one: folder or hub id",
    )
    min_score: float | None = Field(0.0, description="smallest score, 0 to 1")
    max_score: float | None = Field(0.5, description="largest score, 0 to 1")

    def load(self) -> PictureScorer:
        """Loads the classifier."""
        return load_classifier(self.source("hf_nsfw_model"))
