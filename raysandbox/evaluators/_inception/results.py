"""What an evaluation leaves: scores over its runs, and a line of each run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from raysandbox.evaluators._inception.measure import MediaSet, Sampled
from raysandbox.evaluators._inception.metrics import Metric

__all__ = ["Run", "json_lines", "over_runs"]


@dataclass(frozen=True)
class Run:
    """One measurement.

    Attributes:
        seed: of its samples.
        sets: the files, of the fake set first.
        sampled: what was drawn from each set.
        scores: by name; empty until it is measured.
    """

    seed: int
    sets: Sequence[MediaSet]
    sampled: Sequence[Sampled]
    scores: Mapping[str, float]

    def sizes(self, metric: Metric) -> dict[str, dict[str, int]]:
        """How many files and samples there are of each set, by its name."""
        return {
            media.name: {
                "files": len(media.files),
                "short_videos": len(media.short(metric)),
                "samples": len(sampled.sample),
                "distinct_samples": len(sampled.sample.files),
            }
            for media, sampled in zip(self.sets, self.sampled, strict=True)
        }


def over_runs(runs: Sequence[Run]) -> dict[str, float]:
    """The mean of each score, and with several runs their standard deviation as `NAME_runs_std`."""
    table = {name: np.array([run.scores[name] for run in runs]) for name in runs[0].scores}
    found = {name: float(values.mean()) for name, values in table.items()}
    if len(runs) > 1:
        found |= {f"{name}_runs_std": float(values.std(ddof=1)) for name, values in table.items()}
    return found


def json_lines(name: str, metric: Metric, runs: Sequence[Run], about: Mapping[str, Any]) -> str:
    """One JSON object per run and line.

    Args:
        name: of the metric.
        metric: how it is measured.
        runs: all measured.
        about: what else every line says.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        {
            "metric": name,
            "results": dict(run.scores),
            "run": index,
            "seed": run.seed,
            **run.sizes(metric),
            **about,
            "time": now,
        }
        for index, run in enumerate(runs)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)
