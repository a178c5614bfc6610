"""A job's units over its workers: one unit per call, results as they come."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.progress import Progress
from raysandbox.core.runner import Emit, Report, UnitWork
from raysandbox.runtime.actors import WorkerJob
from raysandbox.runtime.crew import Crew
from raysandbox.runtime.meter import Meter
from raysandbox.runtime.placement import Resources, gpus_in_reach
from raysandbox.runtime.places import places_for
from raysandbox.runtime.session import ensure_ray
from raysandbox.runtime.slots import Task
from raysandbox.runtime.visibility import require_seen

__all__ = ["JobWorkers"]


def _to_nowhere(event: str, **fields: Any) -> None:
    """For jobs outside of a run, which have no journal."""


@dataclass(frozen=True)
class JobWorkers:
    """`core.runner.Workers` on Ray: an actor in each bundle that the job gets.

    Attributes:
        job: what is to run, with its resources.
        log: the job's log file; the output of worker 1 goes to `LOG.1.log`, and so on.
        progress: receives the progress.
        emit: receives `worker_started`, `worker_lost` and `worker_ended`.
        report: receives how many workers there are and how busy, where they come and go.
        needs: files and folders that workers load.
    """

    job: WorkerJob
    log: Path
    progress: Progress
    emit: Emit = _to_nowhere
    report: Report | None = None
    needs: Sequence[str] = ()

    def map(
        self,
        work: UnitWork,
        units: Sequence[Any],
        *,
        description: str = "",
        noun: str = "units",
        python: str | None = None,
        num_workers: int | None = None,
        elastic: bool = False,
        tries: int | None = None,
        stall_timeout_s: float | None = None,
    ) -> Generator[tuple[int, Any], None, None]:
        """Does every unit once (see `core.runner.Workers.map`)."""
        if not units:
            return
        ensure_ray()
        given = self.job.resources
        number = given.num_workers if "num_workers" in given.model_fields_set else num_workers
        resources = _completed(given, number, len(units), elastic, gpus_in_reach())
        # Folders in which its workers leave files say so: results of other work come back as messages.
        require_seen(self.job.id, self.needs, getattr(work, "shared_folders", ()), resources)
        job = _Bundles(self.job.id, resources, self.job.runtime_env)
        task = Task(job, work, units, self.log, python, tries, resources.num_gpus > 0, stall_timeout_s)
        meter = Meter(self.report if elastic else None)
        self.progress.begin(description or self.job.id, len(units), noun)
        try:
            with places_for(resources, elastic, number, self.job.id) as places:
                crew = Crew(task, places, self.emit, meter)
                try:
                    for index, result in crew.run():
                        self.progress.advance(1)
                        yield index, result
                    meter.tick([], last=True)
                finally:
                    crew.end()
        finally:
            self.progress.end()


def _completed(given: Resources, number: int | None, most: int, elastic: bool, there: float) -> Resources:
    """What is asked, with what it leaves open: how many workers, and a GPU for each where there are as many.

    Workers that come and go take what GPUs there are; `there` is their number.
    """
    size = min(number or 1, most)
    gpus = given.num_gpus
    if "num_gpus" not in given.model_fields_set and there >= (1 if elastic else size):
        gpus = 1.0
    return given.model_copy(update={"num_workers": size, "num_gpus": gpus})


@dataclass(frozen=True)
class _Bundles:
    """A `WorkerJob` with the resources that it got."""

    id: str
    resources: Resources
    runtime_env: Mapping[str, Any]
