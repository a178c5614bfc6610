"""Units in the workers of a job: where a model needs the GPUs that the job asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raysandbox.core.runner import Workers
from raysandbox.recipe.parts import Unit, UnitReport, UnitWork
from raysandbox.recipe.shipping import packed, run_packed, unpacked

__all__ = ["WorkerEngine"]


class WorkerEngine:
    """`recipe.engines.Engine` on the workers of a job.

    Args:
        workers: do the units.
        description: what a progress bar says.
    """

    name = "workers"

    def __init__(self, workers: Workers, description: str = "") -> None:
        self._workers = workers
        self._description = description

    def run(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitReport]:
        """Yields the reports in the order of the units; their files stand in `work.staging`."""
        early: dict[int, Any] = {}
        due = 0
        for index, result in self._workers.map(
            _InWorker(work), [packed(unit) for unit in units], description=self._description
        ):
            early[index] = result
            while due in early:
                (row,) = early.pop(due).to_pylist()
                yield unpacked(row, work.staging)
                due += 1


@dataclass(frozen=True)
class _InWorker:
    """Does units in a worker (`core.runner.UnitWork`)."""

    work: UnitWork

    def load(self, device: str) -> None:
        """Hides the GPUs of the machine from a worker that holds none: Ray leaves them visible."""
        if device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def run(self, unit: pa.Table, state: None) -> pa.Table:
        return run_packed(unit, self.work)
