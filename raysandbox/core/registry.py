"""One small registry for all kinds of components.

Built-in components are found by walking their folder: the file's stem is the name that a
configuration uses, so a module is imported only when its name is asked for. Packages outside
add theirs by an entry point of the group `raysandbox.<kind>`; a program adds its own by
decorating a class with `register`. A provider is a module that knows the names of another system
(`names()`) and makes the class of one when it is asked for (`make(name)`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, TypeVar, cast

from raysandbox.core.errors import UnknownNameError, UserError, did_you_mean

__all__ = ["Registry", "register"]

T = TypeVar("T", bound=type)


def _same(name: str) -> str:
    return name


class _Provider(Protocol):
    """A module that makes classes on demand."""

    def names(self) -> list[str]: ...

    def make(self, name: str) -> type[Any]: ...


class Registry:
    """Names of one kind and the classes behind them.

    Args:
        kind: what messages call it and the entry-point group's last part, e.g. "operator".
        packages: packages whose modules each hold one component named like the module.
        name_of: turns a module's stem into the component's name.
        planned: names of the contract that this version does not hold yet.
        aliases: other names of components.
        provider: name of a module that makes classes for names of another system.
    """

    def __init__(
        self,
        kind: str,
        packages: Sequence[str] = (),
        *,
        name_of: Callable[[str], str] = _same,
        planned: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        provider: str | None = None,
    ) -> None:
        self.kind = kind
        self.group = f"raysandbox.{kind.replace(' ', '_')}"
        self._packages = tuple(packages)
        self._name_of = name_of
        self._planned = frozenset(planned)
        self.aliases = dict(aliases or {})
        self._provider_module = provider
        self._classes: dict[str, type[Any]] = {}

    @cached_property
    def _modules(self) -> dict[str, str]:
        modules: dict[str, str] = {}
        for package in self._packages:
            path = importlib.import_module(package).__path__
            for info in pkgutil.iter_modules(path):
                if info.name.startswith("_") or info.name == "base":
                    continue
                modules[self._name_of(info.name)] = f"{package}.{info.name}"
        return modules

    @cached_property
    def _entry_points(self) -> Mapping[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in self._modules or point.name in found:
                raise UserError(
                    f"{self.kind} '{point.name}' is registered twice: {point.value} of an installed "
                    f"package uses a name that is taken"
                )
            found[point.name] = point
        return found

    @cached_property
    def _provider(self) -> _Provider:
        return cast(_Provider, importlib.import_module(str(self._provider_module)))

    def names(self) -> list[str]:
        """The names of own components, sorted; imports none."""
        return sorted({*self._modules, *self._entry_points, *self._classes})

    def provided_names(self) -> list[str]:
        """The names, sorted, that the provider knows and no own component has."""
        if self._provider_module is None:
            return []
        return sorted({*self._provider.names()} - {*self.names(), *self.aliases})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.aliases or name in self.names() or name in self.provided_names())

    def is_planned(self, name: str) -> bool:
        """Whether the name belongs to the contract but not to this version."""
        return name in self._planned and name not in self.names()

    def get(self, name: str) -> type[Any]:
        """Returns the class registered under a name or an alias of it.

        Raises:
            UnknownNameError: no such name; the message suggests the closest one.
        """
        if not isinstance(name, str):
            raise UnknownNameError(self.unknown(name))
        name = self.aliases.get(name, name)
        if name not in self._classes:
            if name in self._modules:
                importlib.import_module(self._modules[name])
            elif name in self._entry_points:
                point = self._entry_points[name]
                cls = point.load()
                if self._classes.get(name) is None:
                    raise UserError(
                        f"entry point {point.value}: {cls.__name__} is not decorated with @register('{name}')"
                    )
        if name in self._classes:
            return self._classes[name]
        if name in self.provided_names():
            return self._provider.make(name)
        raise UnknownNameError(self.unknown(name))

    def unknown(self, name: object) -> str:
        """The message for a name that `get` does not find."""
        if self.is_planned(str(name)):
            return f"{self.kind} '{name}' is not in this version of raysandbox"
        hint = did_you_mean(str(name), [*self.names(), *self.aliases, *self.provided_names()])
        return f"unknown {self.kind} '{name}'" + (f"; {hint}" if hint else f"; known: {', '.join(self.names())}")

    def add(self, name: str, cls: type[Any]) -> None:
        """Registers a class.

        Raises:
            UserError: the name is taken by another class.
        """
        if name in self.aliases:
            raise UserError(
                f"{self.kind} '{name}' is another name of '{self.aliases[name]}': choose a name of your own"
            )
        taken = self._classes.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise UserError(f"{self.kind} '{name}' is registered twice: {taken.__module__} and {cls.__module__}")
        built_in = self._modules.get(name)
        if built_in is not None and cls.__module__ != built_in:
            raise UserError(f"{self.kind} '{name}' is registered twice: {built_in} and {cls.__module__}")
        self._classes[name] = cls


def register(name: str) -> Callable[[T], T]:
    """Class decorator: registers a component of any kind under the name a configuration uses.

    The kind follows from the base class: `Filter`, `Mapper`, `Hook`, `DataEvaluator` …

    Raises:
        UserError: the name is taken.
    """

    def decorate(cls: T) -> T:
        cls.type_name = name
        cls.registry.add(name, cls)
        return cls

    return decorate
