"""What a run would do now: which jobs are done already, and which would run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raysandbox.config.schema import JobEntry
from raysandbox.core.errors import UserError
from raysandbox.core.files import cache_dir
from raysandbox.core.keys import DigestMemo
from raysandbox.runtime.placement import Resources, resources_problem
from raysandbox.runtime.session import cluster_summary, ensure_ray, this_machine
from raysandbox.sandbox.context import ContextInfos
from raysandbox.sandbox.manifest import Manifest
from raysandbox.sandbox.plan import ExperimentPlan, PlannedJob
from raysandbox.sandbox.resolve import ReadyJob, Resolver, joined

__all__ = ["Preview", "preview", "resource_problems"]


@dataclass(frozen=True)
class Preview:
    """A job and what `run --resume` would do with it.

    Attributes:
        job: the job.
        state: "cached" when its marker stands, "run" when it would run, "depends" when that shows
            only once the jobs before it have run.
    """

    job: PlannedJob
    state: Literal["cached", "run", "depends"]
    note: str = ""


def preview(plan: ExperimentPlan, work_dir: Path, root: Path | None) -> list[Preview]:
    """Looks up the jobs of the first iteration; starts and writes nothing but file digests."""
    settings = plan.config.settings
    shared = cache_dir(settings.cache_dir)
    memo = DigestMemo(shared / "digests")
    context = ContextInfos(None, tuple(pipeline.name for pipeline in plan.config.pipelines))
    context.begin_iteration()
    resolver = Resolver(plan, work_dir, root, context, memo)
    manifest = Manifest(work_dir / "artifacts" / "markers", memo)
    scope = "iter_1" if settings.max_iter_num > 1 else ""
    cached: set[object] = set()
    found = []
    for planned in plan.jobs:
        state: Literal["cached", "run", "depends"] = "depends"
        note = ""
        if cached.issuperset(planned.needs):
            state = "run"
            units = _units(resolver, planned, scope)
            reusable = [unit for unit in units or () if unit.reusable]
            present = [marker for unit in reusable if (marker := manifest.find(unit.key)) is not None]
            for marker in present:
                resolver.finished(planned, marker)
            if units is not None and len(present) == len(units):
                state = "cached"
                cached.add(planned.entry)
                context.record(planned.entry, joined(planned.entry, [marker.outputs for marker in present]))
            elif units and planned.entry.config.foreach is None:
                note = planned.hook.forecast(units[0].job, shared, plan.config.allow_user_code)
        found.append(Preview(planned, state, note))
    return found


def _units(resolver: Resolver, planned: PlannedJob, scope: str) -> list[ReadyJob] | None:
    """The runs of a job; None when its configuration is wrong, which `check` explains."""
    try:
        return resolver.units(planned, scope, {})
    except UserError:
        return None


def resource_problems(plan: ExperimentPlan) -> tuple[str, dict[JobEntry, str]]:
    """Compares what jobs ask for with the cluster that RAY_ADDRESS names, else with this machine.

    Returns:
        the cluster in words; the jobs that it cannot hold, and why.
    """
    cluster = this_machine()
    if "RAY_ADDRESS" in os.environ:
        ensure_ray()
        cluster = cluster_summary()
    name = "this machine" if cluster.local else f"the cluster of {len(cluster.nodes)} node(s)"
    asked = {
        job.entry: Resources.model_validate(job.entry.config.resources) for job in plan.jobs if job.hook.uses_workers
    }
    problems = {entry: resources_problem(resources, cluster) for entry, resources in asked.items()}
    found = {entry: problem for entry, problem in problems.items() if problem is not None}
    return f"{name}: {cluster.total('CPU'):g} CPUs, {cluster.total('GPU'):g} GPUs", found
