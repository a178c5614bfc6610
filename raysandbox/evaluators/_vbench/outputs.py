"""What an evaluation leaves: the original's merged results, VBench's own, the totals, a radar plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_write
from raysandbox.evaluators._vbench.radar import save_radar
from raysandbox.evaluators._vbench.scores import Totals

__all__ = ["write_outputs"]


def write_outputs(
    folder: Path,
    name: str,
    scores: Mapping[str, float],
    totals: Totals,
    mean_score: float,
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    clips: Mapping[str, tuple[int, int | None]],
) -> None:
    """Writes `{name}_merged_results.json`, `_eval_results.json`, `_scores.json` and `_radar.png`.

    Args:
        folder: where to.
        name: what the files' names begin with.
        scores: raw scores by dimension.
        totals: the leaderboard's sums of them.
        mean_score: plain mean of them.
        results: of each video, by dimension.
        clips: number of videos scored and, where a suite says so, wanted, by dimension.
    """
    own = {
        dimension: [score, [_without_device(result) for result in results[dimension]]]
        for dimension, score in scores.items()
    }
    sums = {
        "mean_score": mean_score,
        "quality": totals.quality,
        "semantic": totals.semantic,
        "total": totals.total,
        "missing": list(totals.missing),
        "videos": {dimension: {"scored": done, "wanted": wanted} for dimension, (done, wanted) in clips.items()},
    }
    _write(folder / f"{name}_eval_results.json", own)
    _write(folder / f"{name}_scores.json", sums)
    save_radar(scores, name, folder / f"{name}_radar.png")
    _write(folder / f"{name}_merged_results.json", {"mean_score": mean_score, "detail": dict(scores)})


def _without_device(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "device"}


def _write(path: Path, content: Any) -> None:
    atomic_write(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
