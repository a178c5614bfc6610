"""Sizes that frames are brought to."""

from __future__ import annotations

__all__ = ["resized_dimensions"]


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
