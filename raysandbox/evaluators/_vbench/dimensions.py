"""VBench's sixteen dimensions: how they are normalised and weighted, what each needs and gives.

The constants are the leaderboard's (VBench, CVPR 2024, https://vchitect.github.io/VBench-project/).
Standard library only: VBench's own environment imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DIMENSIONS", "PACKAGES", "PUBLISHED", "Dimension"]


@dataclass(frozen=True)
class Dimension:
    """One dimension.

    Attributes:
        name: VBench's name of it.
        group: which of the two scores it belongs to.
        minimum: raw score that counts as 0.
        maximum: raw score that counts as 1.
        weight: in its group.
        terms: how a video's result enters the score, which is the quotient of two sums over videos:
            "mean" (the result; 1), "frames" (the sum of its frames' results; their number), or the
            keys of its result that hold numerator and denominator.
        scale: what the quotient is multiplied by.
        reads_prompt: whether it depends on the prompt and what the suite says about it.
        needs_suite: whether it needs what only the suite's prompts have, so that videos of one's own cannot have it.
        modules: what it imports beyond the ten dimensions that need no detectron2.
    """

    name: str
    group: Literal["quality", "semantic"]
    minimum: float = 0.0
    maximum: float = 1.0
    weight: float = 1.0
    terms: tuple[str, str] | Literal["mean", "frames"] = "mean"
    scale: float = 1.0
    reads_prompt: bool = False
    needs_suite: bool = False
    modules: tuple[str, ...] = ()


_FRAMES = ("video_sim", "cnt_per_video")
_SUCCESSES = ("success_frame_count", "frame_count")
_GRIT = ("detectron2",)
# What modules are called where something is to be done about them.
PACKAGES = {"numpy.lib.function_base": "numpy < 2"}

# In the order of the leaderboard.
DIMENSIONS: dict[str, Dimension] = {
    dimension.name: dimension
    for dimension in (
        Dimension("subject_consistency", "quality", 0.1462, terms=_FRAMES),
        Dimension("background_consistency", "quality", 0.2615, terms=_FRAMES),
        Dimension("temporal_flickering", "quality", 0.6293),
        Dimension("motion_smoothness", "quality", 0.706, 0.9975),
        Dimension("dynamic_degree", "quality", weight=0.5),
        Dimension("aesthetic_quality", "quality"),
        Dimension("imaging_quality", "quality", scale=0.01),
        Dimension("object_class", "semantic", terms=_SUCCESSES, reads_prompt=True, needs_suite=True, modules=_GRIT),
        Dimension("multiple_objects", "semantic", terms=_SUCCESSES, reads_prompt=True, needs_suite=True, modules=_GRIT),
        Dimension("human_action", "semantic", reads_prompt=True, modules=("numpy.lib.function_base",)),
        Dimension("color", "semantic", reads_prompt=True, needs_suite=True, modules=_GRIT),
        Dimension(
            "spatial_relationship", "semantic", terms="frames", reads_prompt=True, needs_suite=True, modules=_GRIT
        ),
        Dimension(
            "scene",
            "semantic",
            maximum=0.8222,
            terms=_SUCCESSES,
            reads_prompt=True,
            needs_suite=True,
            modules=("fairscale",),
        ),
        Dimension("appearance_style", "semantic", 0.0009, 0.2855, terms="frames", reads_prompt=True, needs_suite=True),
        Dimension("temporal_style", "semantic", maximum=0.364, reads_prompt=True),
        Dimension("overall_consistency", "semantic", maximum=0.364, reads_prompt=True),
    )
}

# Raw scores of the leaderboard in per cent, in the order of DIMENSIONS.
PUBLISHED: dict[str, tuple[float, ...]] = {
    "T2V-Turbo": (
        *(96.28, 97.02, 97.48, 97.34, 49.17, 63.04, 72.49),
        *(93.96, 54.65, 95.20, 89.90, 38.67, 55.58, 24.42, 25.51, 28.16),
    ),
    "Data-Juicer (T2V, 147k)": (
        *(97.32, 99.03, 96.60, 96.51, 51.67, 68.92, 70.42),
        *(95.85, 61.63, 95.60, 94.06, 46.95, 57.57, 24.42, 26.34, 28.90),
    ),
    "Data-Juicer (228k)": (
        *(97.92, 99.27, 98.14, 97.77, 38.89, 67.39, 70.41),
        *(96.44, 64.51, 95.40, 95.51, 47.17, 57.30, 25.55, 26.82, 29.25),
    ),
}
