"""`raysandbox run CFG`: one experiment."""

from __future__ import annotations

from typing import Annotated

import typer

from raysandbox.cli.options import AllowUserCode, Config, Overrides, one_config

__all__ = ["command"]


def command(
    config: Config = None,
    config_option: Annotated[str | None, typer.Option("--config", help="The same, as an option.")] = None,
    override: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on: finished jobs and trials do not run again.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Do not read what earlier runs and other trials left in cache_dir.")
    ] = False,
    allow_user_code: AllowUserCode = False,
) -> None:
    """Run an experiment, or a search if it has `hpo_config`; `check` comes first, and an error starts nothing."""
    from raysandbox.api import run
    from raysandbox.cli.console import ConsoleView, console, print_table
    from raysandbox.report.search import SEARCH_FOLDER, search_tables
    from raysandbox.report.summary import collect

    with ConsoleView() as view:
        path = one_config(config, config_option)
        result = run(
            path,
            override or [],
            resume=resume,
            use_cache=not no_cache,
            view=view,
            allow_user_code=allow_user_code,
        )
    found = result.work_dir
    is_search = (found / SEARCH_FOLDER).exists()
    for table in search_tables(found) if is_search else collect(found).tables():
        print_table(table)
    if is_search:
        console.print(f"best configuration: {found / 'best_config.yaml'}", soft_wrap=True, markup=False)
    console.print(f"report: {found / 'report.md'}", soft_wrap=True, markup=False)
