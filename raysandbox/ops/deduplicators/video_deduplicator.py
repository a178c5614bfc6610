"""Drops rows whose videos occurred before."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from raysandbox.core.registry import register
from raysandbox.ops import media
from raysandbox.ops.batch import Batch
from raysandbox.ops.exact import MediaDeduplicator

__all__ = ["VideoDeduplicator"]


@register("video_deduplicator")
class VideoDeduplicator(MediaDeduplicator):
    """Keeps the first of rows whose videos have the same compressed pictures, whatever their sound."""

    example: ClassVar[Mapping[str, Any]] = {"consider_text": True}
    reads: ClassVar[tuple[str, ...]] = ("video",)
    hash_column: ClassVar[str] = "__dj__videohash"

    def media_hashes(self, batch: Batch) -> Sequence[str]:
        """Returns the digest of each row's video; of several the digest of theirs, one named twice counted once."""
        rows = zip(media.file_lists(batch, "video"), media.video_digests(batch), strict=True)
        return [_combined(dict(zip(names, digests, strict=True)).values()) for names, digests in rows]


def _combined(digests: Collection[str]) -> str:
    if len(digests) < 2:
        return "".join(digests)
    return hashlib.md5("".join(digests).encode(), usedforsecurity=False).hexdigest()
