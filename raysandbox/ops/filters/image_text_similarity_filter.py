"""Keeps rows by how well their text fits their images."""

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
from raysandbox.ops.media import images
from raysandbox.ops.model_filter import MIB, ModelFilter, ReduceMode
from raysandbox.ops.text_similarity import flipped, similarity_of_chunks

__all__ = ["ImageTextSimilarityFilter"]


@register("image_text_similarity_filter")
class ImageTextSimilarityFilter(ModelFilter):
    """Keeps rows whose chunks of text, any or all, fit the images that they name within a range."""

    example: ClassVar[Mapping[str, Any]] = {"min_score": 0.2, "reduce_mode": "max"}
    reads: ClassVar[tuple[str, ...]] = ("text", "image")
    stats: ClassVar[tuple[Stat, ...]] = (Stat("image_text_similarity", "min_score", "max_score", -1, 1),)
    usual_memory: ClassVar[int] = 1500 * MIB

    hf_clip: ModelPath = Field("openai/clip-vit-base-patch32", description="CLIP model: folder or hub id")
    min_score: float | None = Field(0.1, description="smallest similarity of text and images")
    max_score: float | None = Field(1.0, description="largest similarity of text and images")
    horizontal_flip: bool = Field(False, description="mirror the images left to right")
    vertical_flip: bool = Field(False, description="turn the images upside down")
    reduce_mode: ReduceMode = Field("avg", description="how the similarities of a chunk's images become one")

    def load(self) -> Clip:
        """Loads the model."""
        return load_clip(self.source("hf_clip"))

    def compute(self, batch: Batch, state: Clip) -> Mapping[str, pa.Array]:
        """Returns the similarity of every chunk that names images."""
        flips = {"horizontally": self.horizontal_flip, "vertically": self.vertical_flip}
        rows = [[[flipped(image, **flips)] for image in row] for row in images(batch)]
        return {"image_text_similarity": similarity_of_chunks(state, batch, "image", rows, self.reduce_mode)}
