"""What a component's configuration holds, for `ls` and the generated reference."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raysandbox.core.component import nested_model, role_of

__all__ = ["Key", "describe_keys"]


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
        name: dotted, as a user writes it.
        type: what it holds, in words.
        default: how the default is written, or "required".
        meaning: one line.
    """

    name: str
    type: str
    default: str
    meaning: str


def describe_keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yields the keys of a model, its own before inherited ones, nested models by dotted names.

    Fields without `repr` are left out: those that another component describes.
    """
    own = [name for name in model.model_fields if name in model.__annotations__]
    inherited = [name for name in model.model_fields if name not in own]
    for name in [*own, *inherited]:
        field = model.model_fields[name]
        if not field.repr:
            continue
        key = prefix + (field.alias or name)
        nested = nested_model(field.annotation)
        if nested is not None:
            yield from describe_keys(nested, f"{key}.")
        else:
            yield Key(key, _type_name(field), _default(field), field.description or "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "null" if value is None else str(value) if not isinstance(value, str) else repr(value)


def _type_name(field: FieldInfo) -> str:
    role = role_of(field)
    return f"{role.value} path" if role is not None else _in_words(field.annotation)


def _in_words(annotation: Any) -> str:
    """A type without its constraints: `list[int] | None`, `'any' | 'all'`."""
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _in_words(options[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(_in_words(option) for option in options))
    if origin is Literal:
        return " | ".join(map(repr, options))
    if annotation is types.NoneType:
        return "None"
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(_in_words, options))}]" if options else name
