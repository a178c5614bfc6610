"""`raysandbox ls [KIND [NAME]]`: what is registered."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raysandbox.core.errors import UnknownNameError, did_you_mean

__all__ = ["command"]

# Kind on the command line → module that holds its registry, registry's name.
_KINDS = {
    "ops": ("raysandbox.ops.base", "OPERATORS"),
    "hooks": ("raysandbox.hooks.base", "HOOKS"),
    "trainers": ("raysandbox.executors.base", "TRAINERS"),
    "inferences": ("raysandbox.executors.base", "INFERENCES"),
    "evaluators": ("raysandbox.evaluators.base", "DATA_EVALUATORS"),
    "stages": ("raysandbox.config.stages", "STAGES"),
}


def command(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"One of: {', '.join(_KINDS)}.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one component in full.")] = None,
) -> None:
    """List operators, hooks and components; with a name: parameters, defaults, example."""
    if kind is not None and kind not in _KINDS:
        hint = did_you_mean(kind, _KINDS) or f"known: {', '.join(_KINDS)}"
        raise UnknownNameError(f"unknown kind '{kind}'; {hint}")
    if kind is not None and name is not None:
        _show(_registry(kind).get(name), name)
        return
    for each in [kind] if kind else list(_KINDS):
        _list(each)


def _registry(kind: str) -> Any:
    import importlib

    module, attribute = _KINDS[kind]
    return getattr(importlib.import_module(module), attribute)


def _list(kind: str) -> None:
    registry = _registry(kind)
    names = registry.names()
    typer.echo(f"{kind} ({len(names)})")
    for name in names:
        typer.echo(f"  {name:<36} {registry.get(name).summary()}")


def _show(cls: Any, name: str) -> None:
    from raysandbox.config.documents import to_yaml
    from raysandbox.core.describe import describe_keys

    typer.echo(f"{name}\n{'=' * len(name)}\n{(cls.__doc__ or '').strip()}\n")
    if getattr(cls, "returns", ()):
        typer.echo("returns: " + ", ".join(cls.returns) + "\n")
    hidden = getattr(cls, "no_meaning_here", frozenset())
    keys = [key for key in describe_keys(_model(cls)) if key.name not in hidden]
    width = max((len(key.name) for key in keys), default=0)
    for key in keys:
        typer.echo(f"  {key.name:<{width}}  {key.meaning} ({key.type}; {key.default})")
    if getattr(cls, "example", None):
        typer.echo("\nexample:\n" + "".join(f"  {line}\n" for line in to_yaml({name: dict(cls.example)}).splitlines()))


def _model(cls: Any) -> Any:
    """What describes its configuration: the class itself; for a hook, its settings."""
    return cls if hasattr(cls, "model_fields") else cls.settings
