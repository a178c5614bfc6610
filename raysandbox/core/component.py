"""The base of every configurable component: a frozen pydantic model, its fields its configuration."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from raysandbox.core.names import nameable
from raysandbox.core.registry import Registry

__all__ = [
    "Component",
    "FetchedLater",
    "InputPath",
    "InputPaths",
    "LibraryOptions",
    "ModelPath",
    "OutputPath",
    "PathRef",
    "PathRole",
    "nested_model",
    "path_refs",
    "role_of",
]


class PathRole(Enum):
    """What a path in a configuration is to the component that holds it."""

    INPUT = "input"
    OUTPUT = "output"
    MODEL = "model"  # a directory or file, or a name that a model hub or the component knows


_Path = Annotated[str, AfterValidator(nameable)]
InputPath = Annotated[_Path, PathRole.INPUT]
InputPaths = Annotated[_Path | list[_Path], PathRole.INPUT]
OutputPath = Annotated[_Path, PathRole.OUTPUT]
ModelPath = Annotated[_Path, PathRole.MODEL]


@dataclass(frozen=True)
class LibraryOptions:
    """Marks a mapping that goes on to a library, as `Annotated[dict[str, Any], LibraryOptions(…)]`.

    Attributes:
        harmless: keys that run no code of the configuration's author; others need --allow-user-code.
    """

    harmless: frozenset[str]


class FetchedLater(str):
    """What `missing_weights` says of a model that a hub gives when it is first used: no reason to refuse a run."""

    __slots__ = ()


class Component(BaseModel):
    """A configurable thing: operator, evaluator, executor, pool, refinement.

    Class attributes:
        registry: where classes of this kind are registered.
        type_name: the name in a configuration, set by `register`.
        example: a valid configuration: documentation and contract test in one.
        keeps_own_results: whether its result depends on files that its inputs only name, and it keeps
            single results by content itself: a finished job is then run again, which costs little, and
            never taken as it was.
        kept_artifacts: names in its job's folder of artefacts that stay when the job begins anew, since it
            judges by itself what of them is done; everything else there is removed.
        extras: the extras of this package that it always needs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=True)

    registry: ClassVar[Registry]
    type_name: ClassVar[str] = ""
    example: ClassVar[Mapping[str, Any]] = {}
    keeps_own_results: ClassVar[bool] = False
    kept_artifacts: ClassVar[frozenset[str]] = frozenset()
    extras: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def needed_extras(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """The extras of this package that a raw configuration needs where it works."""
        return cls.extras

    @classmethod
    def more_inputs(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """Paths that a raw configuration reads, besides those of the fields that declare paths."""
        return ()

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """What else the result depends on, e.g. an address in the environment: JSON-like, part of a job's key.

        Paths stand in it as they are, not in digests or sentences: those below the folder of an iteration are
        then compared as if they were not.

        Args:
            raw: a raw configuration; its inputs are where they really are.
        """
        return None

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """Model files that a raw configuration names and this machine lacks: dotted key → what to do.

        Paths that fields declare are looked up without this; it is for names that stand for files.
        """
        return {}

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's docstring."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]


@dataclass(frozen=True)
class PathRef:
    """One path in a configuration: its dotted key (list elements by index), value and role."""

    key: tuple[str | int, ...]
    path: str
    role: PathRole


def path_refs(model: type[BaseModel], raw: Mapping[str, Any]) -> Iterator[PathRef]:
    """Yields the paths that a raw configuration holds, by the roles its model's fields declare.

    Works on the raw mapping, so that a configuration which is still incomplete can be planned.
    """
    for name, field in model.model_fields.items():
        key = field.alias if field.alias and field.alias in raw else name
        value = raw.get(key, field.default)
        role = role_of(field)
        nested = nested_model(field.annotation)
        if role is not None:
            paths = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, path in paths:
                if isinstance(path, str) and path:
                    yield PathRef((key,) if index is None else (key, index), path, role)
        elif nested is not None and isinstance(value, Mapping):
            for ref in path_refs(nested, value):
                yield PathRef((key, *ref.key), ref.path, ref.role)


def role_of(field: FieldInfo) -> PathRole | None:
    """The role of a field that holds paths; None for other fields."""
    found = list(field.metadata)
    if typing.get_origin(field.annotation) in (typing.Union, types.UnionType):  # `InputPath | None`
        for option in typing.get_args(field.annotation):
            found += getattr(option, "__metadata__", ())
    return next((item for item in found if isinstance(item, PathRole)), None)


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, directly or as `Model | None`; None for other fields."""
    options = typing.get_args(annotation) or (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
