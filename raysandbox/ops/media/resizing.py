"""Frames in grey, at the size that an operator asks for."""

from __future__ import annotations

import numpy as np

from raysandbox.ops.batch import FrameRequest

__all__ = ["luminance", "resized_dimensions"]


def luminance(image: np.ndarray, request: FrameRequest) -> np.ndarray:
    """A frame in OpenCV's order of colours, (H, W, 3), as `video_motion_score_filter` takes it: uint8 (H, W)."""
    import cv2

    shape = image.shape[:2]
    size = resized_dimensions(shape, request.size, request.max_size, request.divisible)
    if size != shape:
        # OpenCV takes (width, height); that the filter hands it (height, width) is part of its scores.
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def resized_dimensions(
    shape: tuple[int, int], size: tuple[int, ...] | None, max_size: int | None, divisible: int
) -> tuple[int, int]:
    """The size to bring a frame to, as Data-Juicer's `calculate_resized_dimensions`.

    Args:
        shape: height and width.
        size: the shorter edge, or both edges in any order; None keeps the size.
        max_size: most pixels of the longer edge.
        divisible: what both edges must be divisible by.

    Returns:
        Height and width.
    """
    short, long = sorted(shape)
    if size:
        short, long = (size[0], int(size[0] * long / short)) if len(size) == 1 else (min(size), max(size))
    if max_size is not None and long > max_size:
        short, long = int(short * (max_size / long)), max_size
    height, width = (short, long) if shape[1] >= shape[0] else (long, short)
    return height // divisible * divisible, width // divisible * divisible
