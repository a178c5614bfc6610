"""Keeps rows by how beautiful their videos are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.aesthetics import PREDICTOR, load_aesthetics
from raysandbox.ops.base import Stat
from raysandbox.ops.model_filter import MIB, VideoModelFilter
from raysandbox.ops.pretrained import PictureScorer

__all__ = ["VideoAestheticsFilter"]


@register("video_aesthetics_filter")
class VideoAestheticsFilter(VideoModelFilter):
    """Keeps rows whose videos, any or all, have a score of beauty within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_score": 0.4, "any_or_all": "any"}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("video_frames_aesthetics_score", "min_score", "max_score"),)
    usual_memory: ClassVar[int] = 1500 * MIB

    hf_scorer_model: ModelPath = Field(
        PREDICTOR,
        description="predictor of the package simple-aesthetics-predictor: folder or hub id; its scores are divided "
        "by 10 where the name says aesthetics-predictor",
    )
    min_score: float | None = Field(0.4, description="smallest score, 0 to 1")
    max_score: float | None = Field(1.0, description="largest score, 0 to 1")
    frame_sampling_method: Literal["all_keyframes", "uniform"] = Field(
        "uniform", description="all_keyframes; or uniform, frame_num frames from the first to the last"
    )

    def load(self) -> PictureScorer:
        """Loads the predictor."""
        return load_aesthetics(self.source("hf_scorer_model", PREDICTOR))
