"""Pydantic's findings as located problems with a fix."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from raysandbox.config.documents import KeyPath
from raysandbox.core.errors import Problem, did_you_mean

__all__ = ["fit", "model_problems", "split"]

Model = TypeVar("Model", bound=BaseModel)

_MODEL = re.compile(r"a valid dictionary or (?:instance of \w+|object to extract fields from)")

Locate = Callable[..., Problem]


def model_problems(
    model: type[BaseModel], raw: Any, locate: Locate, ignore: Callable[[KeyPath], bool] | None = None
) -> list[Problem]:
    """Validates a raw configuration and returns every problem.

    Args:
        model: the schema.
        raw: the configuration.
        locate: makes a Problem from (path, message, fix).
        ignore: paths whose value is not known yet, e.g. an output of an earlier job.
    """
    try:
        model.model_validate(raw)
    except ValidationError as error:
        return list(_translate(model, raw, error, locate, ignore or (lambda path: False)))
    return []


def split(
    model: type[BaseModel], raw: Any, locate: Locate, ignore: Callable[[KeyPath], bool] | None = None
) -> tuple[Any, list[Problem]]:
    """Validates a raw configuration as `model_problems` does.

    Returns:
        the configuration without the keys and list elements that have a problem; every problem.
    """
    wrong: list[KeyPath] = []

    def note(path: KeyPath, message: str, fix: str = "") -> Problem:
        wrong.append(path)
        return locate(path, message, fix)

    problems = model_problems(model, raw, note, ignore)
    return _without(raw, wrong), problems


def fit(model: type[Model], raw: Any, locate: Locate) -> tuple[Model | None, list[Problem]]:
    """Validates a raw configuration and keeps what is right of it, so that the rest is checked too.

    Returns:
        the model without the keys and list elements that have a problem, or None when it cannot do
        without one; every problem.
    """
    rest, problems = split(model, raw, locate)
    try:
        return model.model_validate(rest), problems
    except ValidationError:
        return None, problems


def _without(raw: Any, paths: list[KeyPath]) -> Any:
    gone = {path[0] for path in paths if len(path) == 1}
    inner = {
        key: [path[1:] for path in paths if len(path) > 1 and path[0] == key] for key in {p[0] for p in paths if p}
    }
    if isinstance(raw, Mapping):
        return {key: _without(value, inner.get(key, [])) for key, value in raw.items() if key not in gone}
    if isinstance(raw, list):
        return [_without(value, inner.get(index, [])) for index, value in enumerate(raw) if index not in gone]
    return raw


def _translate(
    model: type[BaseModel], raw: Any, error: ValidationError, locate: Locate, ignore: Callable[[KeyPath], bool]
) -> Iterator[Problem]:
    seen: set[KeyPath] = set()
    for detail in error.errors(include_url=False):
        path = _real_path(detail["loc"], raw)
        is_unknown_key = detail["type"] == "extra_forbidden"
        if path in seen or (ignore(path) and not is_unknown_key):  # branches of a union report the same value
            continue
        seen.add(path)
        if is_unknown_key:
            known = _field_names(model, path[:-1])
            hint = did_you_mean(str(path[-1]), known)
            yield locate(path, f"unknown key '{path[-1]}'", hint or (f"known: {', '.join(known)}" if known else ""))
        elif detail["type"] == "missing":
            yield locate(path, "is required", "add it")
        else:
            yield locate(path, _sentence(detail["msg"], detail["input"]), "")


def _sentence(message: str, value: Any) -> str:
    message = message.removeprefix("Value error, ").replace("Input should be", "should be")
    message = _MODEL.sub("a mapping", message)
    if isinstance(value, str | int | float | bool) and "should be" in message:
        message += f", not {value!r}"
    return message[:1].lower() + message[1:]


def _real_path(location: tuple[str | int, ...], raw: Any) -> KeyPath:
    """Drops the parts that pydantic adds for the branches of a union."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(raw, Mapping):
            if part in raw:
                raw = raw[part]
            elif not is_last:
                continue
            path.append(part)
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
            path.append(part)
    return tuple(path)


def _field_names(model: type[BaseModel], path: KeyPath) -> list[str]:
    annotation: Any = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and (field := _field(annotation, part)):
            annotation = _model_in(field.annotation)
        elif isinstance(part, str) and annotation is not model:
            return []
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [field.alias or name for name, field in annotation.model_fields.items()]
    return []


def _field(model: type[BaseModel], key: str | int) -> FieldInfo | None:
    """The field that a key of a configuration sets."""
    return next((field for name, field in model.model_fields.items() if key == (field.alias or name)), None)


def _model_in(annotation: Any) -> Any:
    """The model inside `X | None`, `list[X]`, `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list, dict, tuple):
        return next((m for option in typing.get_args(annotation) if (m := _model_in(option)) is not None), None)
    return None
