"""Keeps rows by how beautiful their images are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.aesthetics import PREDICTOR, load_aesthetics
from raysandbox.ops.base import Stat
from raysandbox.ops.model_filter import MIB, ImageModelFilter
from raysandbox.ops.pretrained import PictureScorer

__all__ = ["ImageAestheticsFilter"]


@register("image_aesthetics_filter")
class ImageAestheticsFilter(ImageModelFilter):
    """Keeps rows whose images, any or all, have a score of beauty within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_score": 0.5, "any_or_all": "any"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("image_aesthetics_scores", "min_score", "max_score"),)
    usual_memory: ClassVar[int] = 1500 * MIB

    hf_scorer_model: ModelPath = Field(
        PREDICTOR,
        description="predictor of the package simple-aesthetics-predictor: folder or hub id; its scores are divided "
        "by 10 where the name says aesthetics-predictor",
    )
    min_score: float | None = Field(0.5, description="smallest score, 0 to 1")
    max_score: float | None = Field(1.0, description="largest score, 0 to 1")

    def load(self) -> PictureScorer:
        """Loads the predictor."""
        return load_aesthetics(self.source("hf_scorer_model", PREDICTOR))
