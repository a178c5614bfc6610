"""Scores clips on a job's workers, except those whose results are known."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.keys import DigestMemo, code_version, digest
from raysandbox.core.runner import Workers
from raysandbox.evaluators._vbench.cache import ResultCache
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS
from raysandbox.evaluators._vbench.suite import Clip
from raysandbox.evaluators._vbench.worker import ShardWork

__all__ = ["ClipKeys", "score_clips"]

logger = logging.getLogger(__name__)

_SHOWN = 5  # failures in a message


@dataclass(frozen=True)
class ClipKeys:
    """Names results by what they depend on.

    Attributes:
        memo: digests of files.
        versions: of the distributions that compute the scores.
        weights: digests of the model files, by dimension.
    """

    memo: DigestMemo
    versions: Mapping[str, str]
    weights: Mapping[str, Sequence[str]]

    def of(self, dimension: str, clip: Clip) -> str:
        """The key of a clip's result in a dimension."""
        return digest(
            {
                "code": code_version(ShardWork),
                "dimension": dimension,
                "video": self.memo.of(clip.path),
                "prompt": [clip.prompt, clip.auxiliary] if DIMENSIONS[dimension].reads_prompt else None,
                "versions": dict(self.versions),
                "weights": list(self.weights.get(dimension, ())),
            }
        )


@dataclass(frozen=True)
class _Unit:
    """Clips of one dimension that a worker scores in one call, by the keys of their results."""

    dimension: str
    clips: Mapping[str, Clip]

    def message(self) -> dict[str, Any]:
        """What the worker is sent."""
        videos = [
            {"path": str(clip.path.absolute()), "prompt": clip.prompt, "auxiliary": clip.auxiliary}
            for clip in self.clips.values()
        ]
        return {"dimension": self.dimension, "videos": videos}


def score_clips(
    clips: Mapping[str, Sequence[Clip]],
    keys: ClipKeys,
    cache: ResultCache,
    workers: Workers,
    work: ShardWork,
    *,
    python: str,
    shard_size: int,
    num_workers: int | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """VBench's result of every clip, by dimension, in the order of the clips.

    Results are kept as they come, so that after a failure only the rest is scored.

    Args:
        clips: what to score, by dimension.
        keys: names the results.
        cache: known results.
        workers: of the job.
        work: what they do.
        python: VBench's interpreter.
        shard_size: clips in one unit of work.
        num_workers: how many workers where the job does not say.

    Returns:
        a mapping with `video_path`, `video_results` and what the dimension adds; clips that do not count
        in a dimension are left out.

    Raises:
        JobFailed: videos cannot be scored; the message names them.
    """
    named = {dimension: [(keys.of(dimension, clip), clip) for clip in found] for dimension, found in clips.items()}
    known = {key: cache.get(key) for pairs in named.values() for key, _ in pairs}
    units = list(_units(named, known, shard_size))
    failures: list[str] = []
    messages = [unit.message() for unit in units]
    found = workers.map(work, messages, description="VBench", python=python, num_workers=num_workers, elastic=True)
    for number, results in found:
        unit = units[number]
        for (key, clip), result in zip(unit.clips.items(), results, strict=True):
            reason = _failure(result)
            if reason:
                failures.append(f"{unit.dimension}: {clip.path}: {reason}")
            else:
                known[key] = result
                cache.put(key, result)
    _raise_failures(failures)
    _warn_of_devices(known)
    return {
        dimension: [_entry(result, clip) for key, clip in pairs if not (result := known[key] or {}).get("left_out")]
        for dimension, pairs in named.items()
    }


def _units(
    named: Mapping[str, Sequence[tuple[str, Clip]]], known: Mapping[str, Any], shard_size: int
) -> Iterator[_Unit]:
    """What is not known, by dimension, so that a worker changes its model seldom; equal clips once."""
    for dimension, pairs in named.items():
        unknown = list({key: clip for key, clip in pairs if known[key] is None}.items())
        for start in range(0, len(unknown), shard_size):
            yield _Unit(dimension, dict(unknown[start : start + shard_size]))


def _failure(result: Mapping[str, Any]) -> str:
    """Why a result is none; empty when it is one."""
    if "error" in result:
        return str(result["error"])
    if result.get("left_out"):
        return ""
    numbers = [result["video_results"], *result.get("frame_results", ())]
    bad = [number for number in numbers if not math.isfinite(number)]
    return f"its score is {bad[0]}, not a number (too few frames?)" if bad else ""


def _raise_failures(failures: Sequence[str]) -> None:
    if failures:
        shown = "\n".join(f"  {line}" for line in sorted(failures)[:_SHOWN])
        more = f"\n  … and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        raise JobFailed(
            f"VBench cannot score {len(failures)} videos; make or remove them, the rest is kept:\n{shown}{more}"
        )


def _warn_of_devices(known: Mapping[str, Mapping[str, Any] | None]) -> None:
    devices = sorted({str(result["device"]) for result in known.values() if result})
    if len(devices) > 1:
        logger.warning(
            "results come from %s: VBench computes in half precision on a GPU, which moves scores a little; "
            "--no-cache scores all videos on the workers of this run",
            " and ".join(devices),
        )


def _entry(result: Mapping[str, Any], clip: Clip) -> dict[str, Any]:
    return {**result, "video_path": str(clip.path)}
