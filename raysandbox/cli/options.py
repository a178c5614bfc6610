"""Arguments that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

from raysandbox.core.errors import ConfigError, Problem

__all__ = ["AllowUserCode", "Config", "NoCache", "Overrides", "RecipeFile", "one_config"]

Config = Annotated[str | None, typer.Argument(metavar="CFG", help="Sandbox configuration, YAML or JSON.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--override",
        metavar="KEY=VALUE",
        help="Set a value, e.g. execution_job_configs.train.extra_configs.seed=1.",
    ),
]
RecipeFile = Annotated[str | None, typer.Argument(metavar="RECIPE", help="Data recipe, YAML or JSON.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Do not read or reuse earlier results.")]

AllowUserCode = Annotated[
    bool, typer.Option("--allow-user-code", help="Run code that recipes name: custom operators, lambdas.")
]


def one_config(argument: str | None, option: str | None) -> str:
    """The file given as argument or after --config.

    Raises:
        ConfigError: none or both were given.
    """
    if (argument is None) == (option is None):
        raise ConfigError([Problem("command line", None, "", "give one configuration file", "raysandbox run CFG")])
    return str(argument or option)
