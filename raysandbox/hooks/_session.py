"""What hooks hand to the components that they run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raysandbox.core.progress import Progress
from raysandbox.core.runner import Emit, Report, Scorers, Workers
from raysandbox.hooks.base import Job, JobContext
from raysandbox.ops.base import OpResources
from raysandbox.recipe.scoring import DatasetScorers
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers

__all__ = ["Session", "session_of"]


@dataclass(frozen=True)
class Session:
    """`core.runner.WorkSession` of a job."""

    report: Report
    emit: Emit
    progress: Progress
    scorers: Scorers
    workers: Workers
    artifacts: Path
    quarantine: Path
    cache_dir: Path
    use_cache: bool
    execution: str
    allow_user_code: bool


def session_of(job: Job, context: JobContext) -> Session:
    """Row scorers on the recipe engine, units of work on the job's resources."""
    emit = partial(context.emit, job=job.id)
    return Session(
        report=context.report,
        emit=emit,
        progress=context.progress,
        scorers=DatasetScorers(
            quarantine_dir=context.quarantine,
            progress=context.progress,
            device=_device_of(job.resources),
            shared=context.cache_dir,
            use_cache=context.use_cache,
        ),
        workers=JobWorkers(job, context.log, context.progress, emit, context.report, job.models),
        artifacts=context.artifacts,
        quarantine=context.quarantine,
        cache_dir=context.cache_dir,
        use_cache=context.use_cache,
        execution=context.execution,
        allow_user_code=context.allow_user_code,
    )


def _device_of(resources: Resources) -> OpResources:
    """What a scorer with a model gets: as many workers as the job has, each with what one of them holds."""
    return OpResources(resources.num_cpus, resources.num_gpus, workers=resources.num_workers)
