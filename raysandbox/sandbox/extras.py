"""Which extras of this package a job needs where it works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raysandbox.core.component import Component
from raysandbox.core.errors import UnknownNameError
from raysandbox.hooks.base import Hook
from raysandbox.ops.base import OPERATORS
from raysandbox.sandbox.drafts import UNKNOWN

__all__ = ["extras_of_job", "extras_of_recipe"]

_HUBS = {"huggingface": "datasets", "modelscope": "modelscope"}  # source of a remote data set → extra


def extras_of_job(hook: type[Hook], recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> tuple[str, ...]:
    """The extras that a job's component and the operators of its recipe need, in order.

    Args:
        hook: of the job.
        recipe: its raw recipe, if it has one.
        extra: its raw `extra_configs`; what is wrong in it is passed over.
    """
    found: list[str] = []
    try:
        model = hook.model(extra)
    except UnknownNameError:  # which the plan tells
        model = None
    if model is not None and issubclass(model, Component):
        found += model.needed_extras({key: value for key, value in extra.items() if value != UNKNOWN})
    if hook.takes_recipe and recipe is not None:
        found += extras_of_recipe(recipe)
    return tuple(dict.fromkeys(found))


def extras_of_recipe(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """The extras that a raw recipe's data and operators need, in order."""
    return tuple(dict.fromkeys([*_of_data(recipe), *_of_operators(recipe)]))


def _of_data(recipe: Mapping[str, Any]) -> Iterator[str]:
    dataset = recipe.get("dataset")
    parts = dataset.get("configs") if isinstance(dataset, Mapping) else None
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and part.get("type") == "remote" and part.get("source") in _HUBS:
            yield _HUBS[str(part["source"])]


def _of_operators(recipe: Mapping[str, Any]) -> Iterator[str]:
    steps = recipe.get("process")
    for step in steps if isinstance(steps, list) else ():
        for name, parameters in _named(step):
            try:
                operator: type[Component] = OPERATORS.get(name)
            except UnknownNameError:
                continue
            yield from operator.needed_extras(parameters)


def _named(step: Any) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """A step's operator and parameters: `{name: {…}}`, or a name alone."""
    if isinstance(step, str):
        return [(step, {})]
    if not isinstance(step, Mapping):
        return []
    return [(str(name), given if isinstance(given, Mapping) else {}) for name, given in step.items()]
