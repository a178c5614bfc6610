"""A search before it runs: what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import Problem
from raysandbox.hpo.schema import Search, read_search
from raysandbox.sandbox.drafts import UNKNOWN, same_path
from raysandbox.sandbox.paths import PathMap, is_inside
from raysandbox.sandbox.plan import ExperimentPlan, make_plan

__all__ = ["plan_search"]


def plan_search(config: SandboxConfig, paths: PathMap | None = None) -> tuple[ExperimentPlan, Search | None]:
    """Plans an experiment and, where it has `hpo_config`, reads its search.

    Args:
        config: the experiment.
        paths: where inputs are looked up; the current directory by default.

    Returns:
        the plan of one run, with the problems of both; the search, None without `hpo_config` or when it cannot
        be read.
    """
    plan = make_plan(config, paths)
    if config.settings.hpo_config is None:
        return plan, None
    search, problems = read_search(config, plan, paths)
    return replace(plan, problems=(*plan.problems, *problems, *_outside(plan))), search


def _outside(plan: ExperimentPlan) -> Iterator[Problem]:
    """Outputs that all trials would write over each other."""
    work_dir = same_path(str(plan.config.settings.work_path))
    for job in plan.jobs:
        for path in job.paths.writes:
            if path != UNKNOWN and not is_inside(same_path(path), work_dir):
                message = f"job {job.entry.id}: every trial of the search would write '{path}'"
                yield plan.config.document.problem(job.entry.path, message, "put it below work_dir")
