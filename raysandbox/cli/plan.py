"""`raysandbox plan CFG`: what a run would do."""

from __future__ import annotations

from typing import Annotated

import typer

from raysandbox.cli.options import Config, Overrides, one_config

__all__ = ["command"]


def command(
    config: Config = None,
    override: Overrides = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Connect to Ray and compare resources.")] = False,
) -> None:
    """Show the jobs in order: what each reads and writes, its resources, what `--resume` would skip."""
    from raysandbox.cli.console import console, print_table
    from raysandbox.config.load import load_config
    from raysandbox.report.summary import Table
    from raysandbox.runtime.session import in_ray_job
    from raysandbox.sandbox.drafts import UNKNOWN
    from raysandbox.sandbox.paths import PathMap, output_root
    from raysandbox.sandbox.plan import make_plan
    from raysandbox.sandbox.preview import preview, resource_lines

    loaded = load_config(one_config(config, None), override or [])
    root = output_root(in_ray_job())
    work_dir = loaded.settings.work_path.expanduser()
    work_dir = work_dir if root is None else root / work_dir
    plan = make_plan(loaded, PathMap(work_dir, root))
    rows = []
    for found in preview(plan, work_dir, root):
        entry, paths = found.job.entry, found.job.paths
        resources = ", ".join(f"{key}={value}" for key, value in entry.config.resources.items())
        reads = "\n".join(path for path in (*paths.reads, *paths.models) if path != UNKNOWN)
        after = ", ".join(f"{need.pipeline}#{need.index}" for need in found.job.needs)
        job = f"{entry.id}\n{entry.config.hook}"
        rows.append((job, after, reads, "\n".join(paths.writes), resources, found.state))
    columns = ("job", "after", "reads", "writes", "resources", "with --resume")
    print_table(Table(f"{loaded.settings.experiment_name} in {work_dir}", columns, tuple(rows), texts=len(columns)))
    iterations = loaded.settings.max_iter_num
    if iterations > 1:
        targets = f", until {loaded.settings.iter_targets_mode} of: " + "; ".join(loaded.settings.iter_targets)
        console.print(f"at most {iterations} iterations" + (targets if loaded.settings.iter_targets else ""))
    for problem in plan.problems:
        console.print(f"{problem.severity}: {problem}", markup=False)
    if cluster:
        for line in resource_lines(plan):
            console.print(line, markup=False)
