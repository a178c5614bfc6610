"""A stretch of a video at one size, as models are trained on it; runs in the decoder's process."""

from __future__ import annotations

from typing import Any

import numpy as np

from raysandbox.ops.media.decoding import decoded, opened, timeline_of

__all__ = ["sampled_clip"]


def sampled_clip(path: str, count: int, stride: int, where: float, height: int, width: int) -> np.ndarray:
    """Frames at equal distances, scaled to cover a size and cut to its middle.

    Args:
        path: the video.
        count: number of frames.
        stride: distance between them, in frames; smaller where the video is too short for it.
        where: in [0, 1), which of the possible first frames.
        height: of the result.
        width: of the result.

    Returns:
        uint8 of shape (count, height, width, 3) in RGB.

    Raises:
        ValueError: it has fewer frames than `count`.
    """
    with opened(path) as (container, stream):
        timeline = timeline_of(container, stream)
        total = len(timeline)
        if total < count:
            raise ValueError(f"it has {total} frames, {count} are needed")
        step = min(stride, (total - 1) // (count - 1)) if count > 1 else 1
        first = int(where * (total - (count - 1) * step))
        wanted = range(first, first + count * step, step)
        frames = [_fitted(frame, height, width) for _, frame in decoded(container, stream, timeline, wanted)]
    return np.stack(frames)


def _fitted(frame: Any, height: int, width: int) -> np.ndarray:
    """A frame as it is to be seen, scaled by the smallest factor that covers the size, and its middle."""
    turns = frame.rotation // 90
    rows, columns = (width, height) if turns % 2 else (height, width)
    scale = max(rows / frame.height, columns / frame.width)
    scaled = max(rows, round(frame.height * scale)), max(columns, round(frame.width * scale))
    # Colours first: scaled together with their conversion, they are off by several of 255.
    method = "AREA" if scale < 1 else "BICUBIC"
    pixels = (
        frame.reformat(format="rgb24").reformat(width=scaled[1], height=scaled[0], interpolation=method).to_ndarray()
    )
    top, left = (scaled[0] - rows) // 2, (scaled[1] - columns) // 2
    return np.rot90(pixels[top : top + rows, left : left + columns], turns)
