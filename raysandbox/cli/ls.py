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

    typer.echo(f"{name}\n{'=' * len(name)}\n{(cls.__doc__ or '').strip()}\n")
    returns = getattr(cls, "returns", ())
    if returns:
        typer.echo("returns: " + ", ".join(returns) + "\n")
    fields = getattr(cls, "model_fields", None)
    if fields is None and hasattr(cls, "settings"):
        fields = cls.settings.model_fields
    hidden = getattr(cls, "no_meaning_here", frozenset())
    for field_name, field in (fields or {}).items():
        if field_name in hidden:
            continue
        default = "required" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
        typer.echo(
            f"  {field_name}: {_type_name(field.annotation)}, {default}\n      {field.description or ''}".rstrip()
        )
    if getattr(cls, "example", None):
        typer.echo("\nexample:\n" + "".join(f"  {line}\n" for line in to_yaml({name: dict(cls.example)}).splitlines()))


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
