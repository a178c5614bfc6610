"""`raysandbox analyze RECIPE`: the statistics of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raysandbox.cli.options import AllowUserCode, NoCache, Overrides, RecipeFile, one_config

__all__ = ["command"]


def command(
    recipe: RecipeFile = None,
    config_option: Annotated[str | None, typer.Option("--config", help="The same, as an option.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of tables and plots.")] = None,
    override: Overrides = None,
    no_cache: NoCache = False,
    allow_user_code: AllowUserCode = False,
) -> None:
    """Compute the statistics of a recipe's filters over a data set, as dj-analyze does."""
    from raysandbox.cli.console import ConsoleView, console, print_table
    from raysandbox.cli.recipes import load_recipe
    from raysandbox.recipe.api import analyze
    from raysandbox.report.summary import analysis_table

    raw = load_recipe(one_config(recipe, config_option), override or [], allow_user_code)
    export_path = raw.get("export_path")
    folder = out or (Path(export_path).parent / "analysis" if export_path else Path("outputs/analysis"))
    with ConsoleView() as view:
        result = analyze(raw, out_dir=folder, progress=view, allow_user_code=allow_user_code, cache=not no_cache)
    print_table(analysis_table(result.analysis))
    for warning in result.warnings:
        view.note(warning)
    console.print(f"{result.rows:,} rows; tables and plots in {folder}; {result.path}", soft_wrap=True, markup=False)
