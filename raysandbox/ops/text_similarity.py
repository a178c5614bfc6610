"""How well texts fit the pictures that they name: what the two filters of it share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from raysandbox.ops.batch import Batch
from raysandbox.ops.clip import Clip
from raysandbox.ops.model_filter import ReduceMode, lists_of, reduced

__all__ = ["flipped", "similarity_of_chunks"]


def similarity_of_chunks(
    clip: Clip, batch: Batch, kind: Literal["image", "video"], files: Sequence[Sequence[Any]], mode: ReduceMode
) -> pa.Array:
    """For each chunk of a row that names files how well it fits their pictures.

    Args:
        clip: the model.
        batch: the rows.
        kind: what their texts name.
        files: for each row and file its pictures.
        mode: how the values of a chunk's pictures become one.

    Returns:
        a list of float64 per row; 0 for a chunk whose files have no pictures or do not exist.
    """
    tokens = batch.keys.tokens
    chunks = [tokens.chunks(text, kind) if row else [] for text, row in zip(batch.texts, files, strict=True)]
    words = [chunk.text for row in chunks for chunk in row]
    pictures = [
        list(chain.from_iterable(row[chunk.files])) for row, named in zip(files, chunks, strict=True) for chunk in named
    ]
    scores = clip.similarities(words, pictures)
    return lists_of(reduced(scores, map(len, pictures), mode), map(len, chunks))


def flipped(picture: Any, *, horizontally: bool, vertically: bool) -> np.ndarray:
    """A picture of shape (H, W, 3), mirrored left to right, upside down, both, or as it is."""
    array = np.asarray(picture)
    array = array[:, ::-1] if horizontally else array
    return array[::-1] if vertically else array
