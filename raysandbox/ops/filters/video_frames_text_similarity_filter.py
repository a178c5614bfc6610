"""Keeps rows by how well their text fits frames of their videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.clip import Clip, load_clip
from raysandbox.ops.model_filter import MIB, VideoModelFilter
from raysandbox.ops.text_similarity import flipped, similarity_of_chunks

__all__ = ["VideoFramesTextSimilarityFilter"]


@register("video_frames_text_similarity_filter")
class VideoFramesTextSimilarityFilter(VideoModelFilter):
    """Keeps rows whose chunks of text, any or all, fit frames of the videos that they name within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_score": 0.2, "frame_sampling_method": "uniform", "frame_num": 3}
    reads: ClassVar[tuple[str, ...]] = ("text", "video")
    stats: ClassVar[tuple[Stat, ...]] = (Stat("video_frames_text_similarity", "min_score", "max_score", -1, 1),)
    usual_memory: ClassVar[int] = 1500 * MIB

    hf_clip: ModelPath = Field("openai/clip-vit-base-patch32", description="CLIP model: folder or hub id")
    min_score: float | None = Field(0.1, description="smallest similarity of text and frames")
    max_score: float | None = Field(1.0, description="largest similarity of text and frames")
    horizontal_flip: bool = Field(False, description="mirror the frames left to right")
    vertical_flip: bool = Field(False, description="turn the frames upside down")

    def load(self) -> Clip:
        """Loads the model."""
        return load_clip(self.source("hf_clip"))

    def compute(self, batch: Batch, state: Clip) -> Mapping[str, pa.Array]:
        """Returns the similarity of every chunk that names videos, over the frames of all of them."""
        flips = {"horizontally": self.horizontal_flip, "vertically": self.vertical_flip}
        rows = [[[flipped(frame, **flips) for frame in video] for video in row] for row in self.pictures(batch)]
        values = similarity_of_chunks(state, batch, "video", rows, self.reduce_mode)
        return {"video_frames_text_similarity": values}
