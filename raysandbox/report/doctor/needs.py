"""Judges what a configuration needs: its problems, extras, storage, resources of every job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import ValidationError

from raysandbox.core.errors import Problem
from raysandbox.report.doctor.installation import EXTRAS, is_installed
from raysandbox.report.doctor.lines import Line, State
from raysandbox.runtime.placement import Resources, resources_problem
from raysandbox.runtime.session import Cluster
from raysandbox.sandbox.plan import ExperimentPlan

__all__ = ["extra_need_lines", "problem_lines", "resource_lines"]


def problem_lines(config: str, problems: Sequence[Problem]) -> Iterator[Line]:
    """What `check` found; one green line where it found nothing.

    Args:
        config: the file.
        problems: of it; a missing path is red, since `run` refuses it.
    """
    for problem in problems:
        stops = problem.severity == "error" or problem.missing_path
        state: State = "red" if stops else "yellow"
        where = problem.file or config
        if problem.line is not None:
            where += f":{problem.line}"
        what = f"{where} {problem.path}".strip()
        yield Line("configuration", what, state, problem.message, problem.fix)
    if not problems:
        yield Line("configuration", config, "green", "nothing is missing")


def extra_need_lines(wanted: Mapping[str, Sequence[str]]) -> Iterator[Line]:
    """Whether the extras are installed here: extra → the jobs that need it."""
    for extra, jobs in wanted.items():
        found = is_installed(extra)
        named = ", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")
        if found:
            yield Line("configuration", f"extra {extra}", "green", f"{EXTRAS[extra][0]} {found}, for {named}")
        else:
            fix = f"pip install 'raysandbox[{extra}]'"
            yield Line("configuration", f"extra {extra}", "red", f"not installed, needed by {named}", fix)


def resource_lines(plan: ExperimentPlan, cluster: Cluster, name: str) -> Iterator[Line]:
    """Whether the workers of every job fit, all of the cluster being free.

    Args:
        plan: the jobs.
        cluster: what there is.
        name: what to call it.
    """
    for job in plan.jobs:
        if not (job.hook.uses_workers or job.entry.config.resources):
            continue
        try:
            asked = Resources.model_validate(job.entry.config.resources)
        except ValidationError:  # which the problems tell
            continue
        shown = ", ".join(f"{key}={value}" for key, value in job.entry.config.resources.items()) or "one CPU"
        problem = resources_problem(asked, cluster)
        what = f"resources of {job.entry.id}"
        if problem is None:
            yield Line("configuration", what, "green", f"{shown}: fits {name}")
        else:
            fix = "ask for less in `resources`, or add such nodes"
            yield Line("configuration", what, "red", f"{shown}: never fits {name}: {problem}", fix)
