"""`raysandbox` and `python -m raysandbox`: the verbs, and errors as messages with a status.

Exit status: 0 done; 1 a job failed; 2 the configuration or an input is wrong; 128 + signal when
interrupted.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from raysandbox.cli import analyze, check, doctor, env, ls, plan, process, run, weights
from raysandbox.core.errors import (
    ConfigError,
    RunInterrupted,
    SandboxError,
    UnknownNameError,
    WorkDirBusyError,
    did_you_mean,
)
from raysandbox.core.redact import RedactingFormatter, redact_text

__all__ = ["main"]

_PLANNED = {"report", "init"}


class _Verbs(TyperGroup):
    """The group of verbs; an unknown one is answered like any unknown name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        verb = args[0]
        if self.get_command(ctx, verb) is None:
            if verb in _PLANNED:
                ctx.fail(f"verb '{verb}' is not in this version of raysandbox")
            hint = did_you_mean(verb, self.list_commands(ctx))
            ctx.fail(f"unknown verb '{verb}'" + (f"; {hint}" if hint else ""))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="raysandbox",
    cls=_Verbs,
    help="Experiments that tune data and models together, on Ray.",
    epilog="On a cluster: ray job submit --working-dir . -- python -m raysandbox run CFG",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for verb in (run, check, plan, process, analyze, ls, doctor):
    app.command(name=verb.__name__.rpartition(".")[2])(verb.command)
for group in (env, weights):
    app.add_typer(group.app, cls=_Verbs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a verb and exits with its status; user errors are one message without a traceback."""
    if logging.lastResort is not None:  # what goes to the terminal where nobody set logging up
        logging.lastResort.setFormatter(RedactingFormatter())
    try:
        app(args=arguments)
    except (ConfigError, UnknownNameError, WorkDirBusyError) as error:
        _fail(str(error), 2)
    except RunInterrupted as error:
        _fail(f"{error}: `raysandbox run … --resume` goes on from here", 128 + error.signum)
    except SandboxError as error:
        _fail(str(error), 1)
    except Exception:  # noqa: BLE001 - a defect: its traceback may quote what a library was given
        typer.echo(redact_text(traceback.format_exc()), err=True, nl=False)
        sys.exit(1)


def _fail(message: str, status: int) -> None:
    typer.echo(f"error: {redact_text(message)}", err=True)
    sys.exit(status)
