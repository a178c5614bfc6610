"""A search before it runs: what is wrong with it."""

from __future__ import annotations

from dataclasses import replace

from raysandbox.config.schema import SandboxConfig
from raysandbox.hpo.schema import Search, read_search
from raysandbox.hpo.verification import outside
from raysandbox.sandbox.paths import PathMap
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
    return replace(plan, problems=(*plan.problems, *problems, *outside(plan))), search
