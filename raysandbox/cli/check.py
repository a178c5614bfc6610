"""`raysandbox check CFG`: everything wrong with a configuration, before anything starts."""

from __future__ import annotations

import sys

import typer

from raysandbox.cli.options import AllowUserCode, Config, Overrides, one_config
from raysandbox.core.redact import redact_text

__all__ = ["command"]


def command(config: Config = None, override: Overrides = None, allow_user_code: AllowUserCode = False) -> None:
    """Validate a configuration: all errors at once, each with file, line, key and fix.

    Status 0: no error (missing data and models are warnings), 2: errors.
    """
    from raysandbox.api import check

    path = one_config(config, None)
    problems = check(path, override or [], allow_user_code=allow_user_code)
    errors = [problem for problem in problems if problem.severity == "error"]
    for problem in problems:
        label = "" if problem.severity == "error" else "warning: "
        typer.echo(redact_text(f"{label}{problem}"), err=problem.severity == "error")
    warnings = len(problems) - len(errors)
    typer.echo(f"{path}: {len(errors)} error(s), {warnings} warning(s)", err=bool(errors))
    sys.exit(2 if errors else 0)
