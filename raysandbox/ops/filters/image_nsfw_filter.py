"""Keeps rows by how indecent their images are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.model_filter import GIB, ImageModelFilter
from raysandbox.ops.pretrained import PictureScorer, load_classifier

__all__ = ["ImageNSFWFilter"]


@register("image_nsfw_filter")
class ImageNSFWFilter(ImageModelFilter):
    """Keeps rows whose images, any or all, have a score of indecency within a range."""

    example: ClassVar[Mapping[str, Any]] = {"max_score": 0.5, "any_or_all": "all"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("image_nsfw_score", "min_score", "max_score", 0, 1),)
    usual_memory: ClassVar[int] = GIB

    hf_nsfw_model: ModelPath = Field(
        "Falconsai/nsfw_image_detection",
        description="image classifier whose second class is the indecent one: folder or hub id",
    )
    min_score: float | None = Field(0.0, description="smallest score, 0 to 1")
    max_score: float | None = Field(0.5, description="largest score, 0 to 1")

    def load(self) -> PictureScorer:
        """Loads the classifier."""
        return load_classifier(self.source("hf_nsfw_model"))
