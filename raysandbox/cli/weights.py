"""`raysandbox weights list, verify, fetch`: the model files that components need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raysandbox.provision.weights import Verdict, WeightFile

__all__ = ["app"]

app = typer.Typer(
    name="weights", help="List, verify and fetch model files.", no_args_is_help=True, add_completion=False
)

ComponentName = Annotated[
    str | None, typer.Argument(metavar="[COMPONENT]", help="Its type in a configuration; all by default.")
]
Parts = Annotated[
    list[str] | None, typer.Option("--part", metavar="PART", help="Only for this part, e.g. a VBench dimension.")
]
_COLUMNS = ("component", "parts", "file", "size", "licence", "state", "where")


@app.command("list")
def list_(component: ComponentName = None, part: Parts = None) -> None:
    """List model files: for which parts, size, licence, whether they are here, and where they belong."""
    from raysandbox.cli.console import print_table
    from raysandbox.report.summary import Table

    rows = [(*_facts(file), _shown(file.state()), str(file.target())) for file in _selected(component, part)]
    print_table(Table("model files", _COLUMNS, tuple(rows), texts=len(_COLUMNS)))


@app.command("verify")
def verify(component: ComponentName = None, part: Parts = None) -> None:
    """Read the model files that are here and compare their digests; status 1 when one is bad."""
    bad = present = 0
    for file in _selected(component, part):
        verdict = file.verify()
        if verdict.state == "missing":
            continue
        present += 1
        bad += not verdict.good
        typer.echo(f"{_shown(verdict):<12} {file.target()}" + (f": {verdict.detail}" if verdict.detail else ""))
    typer.echo(f"{present} model file(s) here, {bad} bad")
    sys.exit(1 if bad else 0)


@app.command("fetch")
def fetch(
    component: ComponentName = None,
    part: Parts = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option("--mirror", metavar="URL", help="Base URL (http, https, file) to ask first; may be repeated."),
    ] = None,
) -> None:
    """Fetch the model files that are missing or bad; status 1 with the list of files to bring, if some stay away."""
    from raysandbox.cli.console import ConsoleView
    from raysandbox.core.errors import UserError
    from raysandbox.provision.fetching import Fetcher, mirrors_of_environment

    failed: list[WeightFile] = []
    with ConsoleView() as view:
        fetcher = Fetcher([*(mirror or []), *mirrors_of_environment()], view)
        for file in _selected(component, part):
            if file.verify().good:
                typer.echo(f"here       {file.target()}")
                continue
            try:
                fetcher.fetch(file)
                compared = "its digest is right" if file.has_digest else "no digest is known to compare with"
                typer.echo(f"fetched    {file.target()} (licence: {file.licence or 'not known'}; {compared})")
            except UserError as error:
                typer.echo(f"not there  {error}", err=True)
                failed.append(file)
    if failed:
        typer.echo(_to_bring(failed), err=True)
        sys.exit(1)


def _selected(component: str | None, parts: Sequence[str] | None) -> list[WeightFile]:
    from raysandbox.core.errors import UnknownNameError
    from raysandbox.provision.weights import checked_parts, components, files_of

    if component is None:
        if parts:
            raise UnknownNameError("--part belongs to a component: name it")
        return [file for name in components() for file in files_of(name)]
    return files_of(component, checked_parts(component, parts) if parts else None)


def _facts(file: WeightFile) -> tuple[str, str, str, str, str]:
    size = f"{file.size / 1e6:,.1f} MB" if file.size else "not known"
    return file.component, ", ".join(file.parts), file.name, size, file.licence or "not known"


def _shown(verdict: Verdict) -> str:
    return {"unchecked": "here"}.get(verdict.state, verdict.state)


def _to_bring(files: Sequence[WeightFile]) -> str:
    """Where files come from and belong, for a machine without a network."""
    lines = [f"\n{len(files)} file(s) to bring:"]
    for file in files:
        lines.append(f"  to      {file.target()}")
        lines += [f"  from    {url}{f' (its member {file.member})' if file.member else ''}" for url in file.urls]
        lines.append(f"  licence {file.licence or 'not known'}" + (f"; sha256 {file.sha256}" if file.sha256 else ""))
        if file.note:
            lines.append(f"  note    {file.note}")
        lines.append("")
    lines.append("or set --mirror or RAYSANDBOX_WEIGHTS_MIRROR to a URL that holds COMPONENT/FILE as listed")
    return "\n".join(lines)
