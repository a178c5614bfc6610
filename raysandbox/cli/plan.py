"""`raysandbox plan CFG`: what a run would do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raysandbox.cli.options import AllowUserCode, Config, Overrides, one_config

if TYPE_CHECKING:
    from raysandbox.hpo.schema import Search
    from raysandbox.report.summary import Table
    from raysandbox.sandbox.graph import JobGraph
    from raysandbox.sandbox.plan import ExperimentPlan

__all__ = ["command"]


def command(config: Config = None, override: Overrides = None, allow_user_code: AllowUserCode = False) -> None:
    """Show the jobs in order: what each reads and writes, its resources, what `--resume` would skip.

    Of a search: what its trials share, and about how long they take.
    Resources are compared with the cluster that RAY_ADDRESS names, else with this machine.
    """
    from raysandbox.cli.console import console, print_table
    from raysandbox.config.load import load_config
    from raysandbox.hpo.planning import plan_search
    from raysandbox.report.summary import Table
    from raysandbox.sandbox.drafts import UNKNOWN
    from raysandbox.sandbox.experiment import locate_run
    from raysandbox.sandbox.paths import PathMap
    from raysandbox.sandbox.preview import preview, resource_problems
    from raysandbox.sandbox.remote_dir import mirrored

    loaded = mirrored(load_config(one_config(config, None), override or [], allow_user_code=allow_user_code))
    work_dir, root = locate_run(loaded)
    plan, search = plan_search(loaded, PathMap(work_dir, root))
    machine, lacking = resource_problems(plan)
    rows = []
    graph = plan.graph()
    for found, before in zip(preview(plan, work_dir, root), graph.after, strict=True):
        entry, paths = found.job.entry, found.job.paths
        sides = [path for path in (entry.config.dj_configs, entry.config.extra_configs) if isinstance(path, str)]
        reads = "\n".join(path for path in (*sides, *paths.reads, *paths.models) if path != UNKNOWN)
        after = ", ".join(f"{need.pipeline}#{need.index}" for need in (plan.jobs[number].entry for number in before))
        if entry.config.foreach:
            after += "\neach element by itself"
        resources = ", ".join(f"{key}={value}" for key, value in entry.config.resources.items())
        if entry in lacking:
            resources += f"\n{lacking[entry]}"
        state = f"{found.state}\n{found.note}".strip()
        job = f"{entry.id}\n{entry.config.hook}"
        rows.append((job, after, reads, "\n".join(paths.writes), resources, state))
    columns = ("job", "after", "reads", "writes", "resources", "with --resume")
    print_table(Table(f"{loaded.settings.experiment_name} in {work_dir}", columns, tuple(rows), texts=len(columns)))
    console.print(machine, markup=False)
    console.print(_at_once(plan, graph), markup=False)
    iterations = loaded.settings.max_iter_num
    if iterations > 1:
        targets = f", until {loaded.settings.iter_targets_mode} of: " + "; ".join(loaded.settings.iter_targets)
        console.print(
            f"at most {iterations} iterations" + (targets if loaded.settings.iter_targets else ""), markup=False
        )
    if search is not None:
        for table in _search_tables(search, plan, work_dir):
            print_table(table)
    for problem in plan.problems:
        console.print(f"{problem.severity}: {problem}", markup=False)
    sys.exit(2 if any(problem.severity == "error" for problem in plan.problems) else 0)


def _at_once(plan: ExperimentPlan, graph: JobGraph) -> str:
    """What may run at the same time."""
    if not plan.in_parallel(graph):
        return "one job at a time"
    most = plan.config.settings.max_parallel_jobs
    foreach = any(job.entry.config.foreach for job in plan.jobs)
    parts = [] if graph.is_chain else ["jobs that are not after each other"]
    parts += ["elements of foreach"] if foreach else []
    limit = f", at most {most}" if most else ""
    return f"{' and '.join(parts)} run at the same time as far as resources allow{limit}"


def _search_tables(search: Search, plan: ExperimentPlan, work_dir: Path) -> list[Table]:
    """What the trials of a search share."""
    from raysandbox.core.files import cache_dir
    from raysandbox.core.keys import DigestMemo
    from raysandbox.hpo.preview import preview_search
    from raysandbox.sandbox.shared import SharedResults
    from raysandbox.sandbox.trials import read_trials

    folder = cache_dir(plan.config.settings.cache_dir)
    shared = SharedResults(folder / "jobs", DigestMemo(folder / "digests"))
    known = read_trials(work_dir / "journal.jsonl")
    if search.num_trials is not None and len(known) >= search.num_trials:
        known = []  # nothing to resume: what a new run would cost
    return preview_search(search, plan.config, plan, shared, folder, known=known).tables()
