"""`raysandbox process RECIPE`: one recipe on one data set."""

from __future__ import annotations

from typing import Annotated

import typer

from raysandbox.cli.options import AllowUserCode, NoCache, Overrides, RecipeFile, one_config

__all__ = ["command"]


def command(
    recipe: RecipeFile = None,
    config_option: Annotated[str | None, typer.Option("--config", help="The same, as an option.")] = None,
    override: Overrides = None,
    no_cache: NoCache = False,
    allow_user_code: AllowUserCode = False,
) -> None:
    """Process a data set by a recipe, as dj-process does."""
    from raysandbox.cli.console import ConsoleView, console, print_table
    from raysandbox.cli.recipes import load_recipe
    from raysandbox.recipe.api import process
    from raysandbox.report.summary import operator_table

    raw = load_recipe(one_config(recipe, config_option), override or [], allow_user_code)
    with ConsoleView() as view:
        result = process(raw, progress=view, allow_user_code=allow_user_code, cache=not no_cache)
    if result.ops:
        print_table(operator_table("Operators", [vars(count) for count in result.ops]))
    for warning in result.warnings:
        view.note(warning)
    kept = f"{result.rows_out:,} of {result.rows_in:,} rows in {result.seconds:.1f} s ({result.engine})"
    quarantined = f", {result.quarantined:,} in quarantine" if result.quarantined else ""
    console.print(f"{kept}{quarantined} → {result.path}", soft_wrap=True, markup=False)
