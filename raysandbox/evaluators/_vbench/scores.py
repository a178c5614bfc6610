"""From results of videos to scores of dimensions, from those to Quality, Semantic and Total.

Sums are exact (`math.fsum`), so a score depends neither on the order of the videos nor on how they
were spread over workers. VBench on a single process computes the same up to rounding; on several it
weights subject_consistency, spatial_relationship and appearance_style differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raysandbox.core.errors import JobFailed
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS, Dimension

__all__ = ["Totals", "normalised", "score_of", "totals_of"]

_QUALITY_WEIGHT, _SEMANTIC_WEIGHT = 4.0, 1.0  # of the leaderboard's Total


def score_of(dimension: str, results: Iterable[Mapping[str, Any]]) -> float:
    """The raw score of a dimension: the quotient of two sums over its videos.

    Args:
        dimension: name of it.
        results: VBench's results of the videos that count, each with `video_path`, `video_results` and
            what the dimension adds (frames, successes).

    Raises:
        JobFailed: no video counts, or a result is not a number.
    """
    about = DIMENSIONS[dimension]
    terms = [_terms(about, result) for result in results]
    count = math.fsum(count for _, count in terms)
    if not count:
        what = "the suite's objects were found in none of the videos" if dimension == "color" else "no video counts"
        raise JobFailed(f"{dimension} has no score: {what}")
    return math.fsum(value for value, _ in terms) / count * about.scale


def _terms(dimension: Dimension, result: Mapping[str, Any]) -> tuple[float, float]:
    if dimension.terms == "mean":
        value, count = float(result["video_results"]), 1.0
    elif dimension.terms == "frames":
        value, count = math.fsum(result["frame_results"]), float(len(result["frame_results"]))
    else:
        numerator, denominator = dimension.terms
        value, count = float(result[numerator]), float(result[denominator])
    if not math.isfinite(value):
        raise JobFailed(f"{dimension.name}: the score of {result['video_path']} is {value}, not a number")
    return value, count


@dataclass(frozen=True)
class Totals:
    """The leaderboard's sums; None where a dimension is missing.

    Attributes:
        quality: weighted mean of the seven dimensions of quality, 0 to 1.
        semantic: mean of the nine semantic ones, 0 to 1.
        total: (4 quality + semantic) / 5.
        missing: names of the dimensions without a score.
    """

    quality: float | None
    semantic: float | None
    total: float | None
    missing: tuple[str, ...]


def totals_of(scores: Mapping[str, float]) -> Totals:
    """Quality, Semantic and Total of raw scores (0 to 1) by dimension, as the leaderboard computes them."""
    quality, semantic = _weighted(scores, "quality"), _weighted(scores, "semantic")
    total = None
    if quality is not None and semantic is not None:
        weights = _QUALITY_WEIGHT + _SEMANTIC_WEIGHT
        total = (_QUALITY_WEIGHT * quality + _SEMANTIC_WEIGHT * semantic) / weights
    return Totals(quality, semantic, total, tuple(name for name in DIMENSIONS if name not in scores))


def _weighted(scores: Mapping[str, float], group: str) -> float | None:
    members = [dimension for dimension in DIMENSIONS.values() if dimension.group == group]
    if any(member.name not in scores for member in members):
        return None
    values = [normalised(member.name, scores[member.name]) * member.weight for member in members]
    return math.fsum(values) / math.fsum(member.weight for member in members)


def normalised(dimension: str, score: float) -> float:
    """A raw score on the leaderboard's scale, where 0 and 1 are its empirical limits."""
    about = DIMENSIONS[dimension]
    return (score - about.minimum) / (about.maximum - about.minimum)
