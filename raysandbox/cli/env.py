"""`raysandbox env create, list, remove`: isolated environments of stacks that cannot share this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.status import Status

__all__ = ["app", "rows"]

app = typer.Typer(
    name="env",
    help="Build and remove the isolated environments of components.",
    no_args_is_help=True,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Environment, e.g. vbench; see `raysandbox env list`.")]


@app.command("create")
def create(
    name: Name,
    with_detectron2: Annotated[
        bool,
        typer.Option("--with-detectron2", help="vbench: all sixteen dimensions; builds detectron2 from its source."),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="PATH", help="easyanimate: your checkout, whose requirements it holds."),
    ] = None,
    python: Annotated[
        str | None, typer.Option("--python", metavar="PY", help="Interpreter to make it with; by default this one.")
    ] = None,
    recreate: Annotated[bool, typer.Option("--recreate", help="Build it even if it is there.")] = False,
) -> None:
    """Build an environment from its pins; does nothing when it is there as it would be built.

    Without --with-detectron2 an environment that was built with it stays, if it can be used.
    """
    from raysandbox.cli.console import console
    from raysandbox.provision.environment_builder import BuildView
    from raysandbox.provision.environment_builder import create as build

    with console.status(f"environment {name}") as status:

        class Shown(BuildView):
            """Steps as lines; pip's lines on the terminal's status line."""

            def step(self, text: str) -> None:
                console.print(text, markup=False)

            def line(self, text: str) -> None:
                _update(status, text)

        variant = "detectron2" if with_detectron2 else ""
        made = build(name, variant=variant, source=source, python=python, recreate=recreate, view=Shown())
    size, seconds = made.manifest["bytes"] / 1e9, made.manifest["seconds"]
    console.print(f"{made.path}: {size:.1f} GB, built in {seconds:.0f} s; ray {made.manifest['ray']}", markup=False)


@app.command("list")
def list_() -> None:
    """List environments: what they are for, whether they are built and fit, size, place."""
    from raysandbox.cli.console import print_table
    from raysandbox.provision.environments import environments_dir, find, known
    from raysandbox.report.summary import Table

    cells = []
    for name, state, text in rows():
        built = find(name)
        size = f"{built.manifest['bytes'] / 1e9:.1f} GB" if built else ""
        cells.append((name, state, text, size))
    print_table(Table("environments", ("name", "state", "what", "size"), tuple(cells), texts=3))
    typer.echo(f"in {environments_dir()} ({', '.join(known())} can be built)")


@app.command("remove")
def remove(name: Name) -> None:
    """Remove an environment."""
    from raysandbox.provision.environment_builder import delete

    typer.echo(f"removed {delete(name)}")


def rows() -> Iterator[tuple[str, str, str]]:
    """Environments as (name, state, what there is to say), for lists."""
    from raysandbox.provision.environments import environments_dir, find, known, pins_of

    root = environments_dir()
    there = [path.name for path in root.iterdir() if path.is_symlink()] if root.is_dir() else []
    for name in sorted({*known(), *there}):
        built = find(name)
        if built is None and name in there:
            yield name, "broken", f"raysandbox env remove {name}"
        elif built is None:
            source = " --source CHECKOUT" if pins_of(name).source_files else ""
            yield name, "absent", f"{known()[name]}: raysandbox env create {name}{source}"
        elif built.misfit():
            yield name, "unusable", f"{built.misfit()}: {built.command}"
        else:
            what = built.differences() or f"Python {built.manifest['python']}, ray {built.manifest['ray']}"
            variant = f"with {built.variant}, " if built.variant else ""
            source = f"for {built.source}, " if built.source else ""
            yield name, "old" if built.differences() else "ok", f"{variant}{source}{what}"


def _update(status: Status, text: str) -> None:
    from rich.markup import escape

    if text:
        status.update(escape(text[:120]))
