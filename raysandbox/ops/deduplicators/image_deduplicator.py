"""Drops rows whose images occurred before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import media
from raysandbox.ops.batch import Batch
from raysandbox.ops.exact import MediaDeduplicator

__all__ = ["ImageDeduplicator"]


@register("image_deduplicator")
class ImageDeduplicator(MediaDeduplicator):
    """Keeps the first of rows whose images have equal perceptual hashes."""

    example: ClassVar[Mapping[str, Any]] = {"method": "dhash"}
    reads: ClassVar[tuple[str, ...]] = ("image",)
    hash_column: ClassVar[str] = "__dj__imagehash"

    method: Literal["phash", "dhash", "whash", "ahash"] = Field(
        "phash", description="the hash: by cosine transform, gradient, wavelet or average"
    )

    def media_hashes(self, batch: Batch) -> Sequence[str]:
        """Returns the hashes of each row's images one after the other, an image that is named twice once."""
        from raysandbox.ops.image_hash import image_hash

        files, pictures = media.file_lists(batch, "image"), media.images(batch)
        rows = [dict(zip(names, found, strict=True)) for names, found in zip(files, pictures, strict=True)]
        return ["".join(image_hash(image, self.method) for image in row.values()) for row in rows]
