"""`raysandbox ls [KIND [NAME]]`: what is registered."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysandbox.core.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from raysandbox.core.describe import Key

__all__ = ["command"]

# Kind on the command line → module that holds its registry, registry's name.
_KINDS = {
    "ops": ("raysandbox.ops.base", "OPERATORS"),
    "hooks": ("raysandbox.hooks.base", "HOOKS"),
    "trainers": ("raysandbox.executors.base", "TRAINERS"),
    "inferences": ("raysandbox.executors.base", "INFERENCES"),
    "message-builders": ("raysandbox.executors.messages.base", "MESSAGE_BUILDERS"),
    "output-parsers": ("raysandbox.executors.parsers.base", "OUTPUT_PARSERS"),
    "probes": ("raysandbox.executors.base", "MODEL_PROBES"),
    "data-executors": ("raysandbox.executors.base", "DATA_EXECUTORS"),
    "model-evaluators": ("raysandbox.executors.base", "MODEL_EVALUATORS"),
    "evaluators": ("raysandbox.evaluators.base", "DATA_EVALUATORS"),
    "stages": ("raysandbox.config.stages", "STAGES"),
}
_SAME = {"operator": "ops", "operators": "ops", "op": "ops"}


def command(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"One of: {', '.join(_KINDS)}.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one component in full.")] = None,
) -> None:
    """List operators, hooks and components; with a name: parameters, defaults, example."""
    kind = _SAME.get(kind or "", kind)
    if kind is not None and kind not in _KINDS:
        hint = did_you_mean(kind, _KINDS) or f"known: {', '.join(_KINDS)}"
        raise UnknownNameError(f"unknown kind '{kind}'; {hint}")
    if kind is None:
        for each in _KINDS:
            _list(each)
    elif name is None:
        _list(kind)
    elif kind == "ops":
        _show_operator(name)
    else:
        _show(_registry(kind).get(name), name)


def _registry(kind: str) -> Any:
    import importlib

    module, attribute = _KINDS[kind]
    return getattr(importlib.import_module(module), attribute)


def _list(kind: str) -> None:
    if kind == "ops":
        _list_operators()
        return
    registry = _registry(kind)
    names = registry.names()
    typer.echo(f"{kind} ({len(names)})")
    for name in names:
        typer.echo(f"  {name:<36} {registry.get(name).summary()}")


def _list_operators() -> None:
    from raysandbox.ops.bridge import PeerOperator
    from raysandbox.ops.describe import operators_by_kind, peers_by_kind

    for kind, found in operators_by_kind().items():
        typer.echo(f"{kind}s ({len(found)})")
        for facts in found:
            typer.echo(f"  {facts.name:<46} {facts.summary}{' [model]' if facts.model else ''}")
    missing = PeerOperator.missing()
    state = "not installed: pip install 'raysandbox[datajuicer]'" if missing else "installed"
    typer.echo(f"\nfrom py-data-juicer ({state})")
    for kind, names in peers_by_kind().items():
        typer.echo(f"{kind}s ({len(names)})\n{_wrapped(names)}")


def _show_operator(name: str) -> None:
    from raysandbox.ops.base import OPERATORS
    from raysandbox.ops.describe import facts_of

    cls = OPERATORS.get(name)
    facts = facts_of(cls)
    _title(name if name == facts.name else f"{name}: {facts.name} by another name", cls)
    _table(facts.parameters)
    if facts.shared:
        typer.echo(f"\nshared (see docs/operators.md):\n{_wrapped(facts.shared)}")
    if facts.statistics:
        typer.echo(f"\nstatistics:\n{_wrapped(facts.statistics)}")
    if facts.model:
        typer.echo("\nloads a model: uses a GPU where there is one")
    if cls.missing():
        typer.echo(f"\n{cls.missing()}")
    _example(facts.name, facts.example)


def _show(cls: Any, name: str) -> None:
    from raysandbox.core.describe import describe_keys

    _title(name, cls)
    if getattr(cls, "returns", ()):
        typer.echo("returns: " + ", ".join(cls.returns) + "\n")
    _table(list(describe_keys(_model(cls))))
    _example(name, getattr(cls, "example", {}))


def _model(cls: Any) -> Any:
    """What describes its configuration: the class itself; for a hook, its settings."""
    return cls if hasattr(cls, "model_fields") else cls.settings


def _title(title: str, cls: Any) -> None:
    typer.echo(f"{title}\n{'=' * len(title)}\n{textwrap.dedent('    ' + (cls.__doc__ or '')).strip()}\n")


def _table(keys: Sequence[Key]) -> None:
    width = max((len(key.name) for key in keys), default=0)
    for key in keys:
        meaning = f"{key.meaning} " if key.meaning else ""
        typer.echo(f"  {key.name:<{width}}  {meaning}({key.type}; {key.default})")


def _example(name: str, example: Any) -> None:
    from raysandbox.config.documents import to_yaml

    if example:
        typer.echo("\nexample:\n" + textwrap.indent(to_yaml({name: dict(example)}), "  "))


def _wrapped(names: Sequence[str]) -> str:
    width = min(shutil.get_terminal_size().columns, 120)
    return textwrap.fill(", ".join(names), width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
