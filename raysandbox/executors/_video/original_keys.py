"""The nested keys of the original's EasyAnimate configurations, as those of our own flat components."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, LiteralString, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from raysandbox.core.component import Component

__all__ = ["Alias", "Place", "Section", "Translation", "dtype_of", "named", "precision_of", "with_keys_of"]

Place = tuple[str, ...]


class Section(BaseModel):
    """A group of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def with_keys_of(component: type[BaseModel], base: type[BaseModel], name: str, module: str) -> Any:
    """A model with the fields of another one and those of a component that it lacks, none of these required.

    Lists of keys do not show the component's again.

    Args:
        component: whose fields come to it.
        base: the other model.
        name: of the new one in `module`, where pickle finds it.
        module: that holds it.
    """
    fields: dict[str, Any] = {}
    for key, own in component.model_fields.items():
        if key not in base.model_fields:
            annotation: Any = Annotated[(own.annotation, *own.metadata)] if own.metadata else own.annotation
            fields[key] = (annotation | None, Field(None, description=own.description, repr=False))
    return create_model(name, __base__=base, __module__=module, **fields)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Alias:
    """What a key of the original's means.

    Attributes:
        keys: the flat component's keys that get its value.
        convert: turns its value into theirs.
    """

    keys: tuple[str, ...]
    convert: Callable[[Any], Any] = _same


@dataclass(frozen=True)
class Translation:
    """From nested keys to those of a flat component.

    Attributes:
        component: the flat component.
        aliases: the original's keys by their place.
        sections: places of sections where the flat component's own keys may stand; the top level always may.
        defaults: what the original does where nothing is said, by flat key.
    """

    component: type[Component]
    aliases: Mapping[Place, Alias]
    sections: tuple[Place, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def flat(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Place]]:
        """The flat keys of a raw configuration, and where each was given; of several places the first counts."""
        values, places = dict(self.defaults), dict[str, Place]()
        for key, place, value in self._given(raw):
            if key not in places:
                values[key], places[key] = value, place
        return values, places

    def check(
        self, raw: Mapping[str, Any], required: Collection[str] = (), refused: Mapping[str, str] | None = None
    ) -> None:
        """Checks what is given without the flat component.

        Args:
            raw: a configuration whose nested keys are valid.
            required: flat keys that must be given.
            refused: keys, flat ones or of the top level, that must not be given, and why.

        Raises:
            ValidationError: every finding, each at the key that was given.
        """
        values, places = self.flat(raw)
        found = list(self._contradictions(raw, values, places))
        found += self._missing(raw, [key for key in required if not values.get(key)])
        for key, why in (refused or {}).items():
            if key in places or key in raw:
                found.append(_finding(places.get(key, (key,)), why, values.get(key)))
        if found:
            raise ValidationError.from_exception_data(self.component.type_name, found)

    def build(self, raw: Mapping[str, Any], refused: Mapping[str, str] | None = None) -> Any:
        """The flat component.

        Args:
            raw: a configuration whose nested keys are valid.
            refused: see `check`.

        Raises:
            ValidationError: its findings, each at the key that was given; a key given twice with
                different values.
        """
        self.check(raw, refused=refused)
        values, places = self.flat(raw)
        try:
            return self.component.model_validate(values)
        except ValidationError as error:
            details = error.errors(include_url=False)
        missing = [str(detail["loc"][0]) for detail in details if detail["type"] == "missing"]
        others = [detail for detail in details if detail["type"] != "missing"]
        found = [
            _finding(self.place(detail["loc"] or _subject(detail), places), _text(detail), detail["input"])
            for detail in others
        ]
        raise ValidationError.from_exception_data(self.component.type_name, [*self._missing(raw, missing), *found])

    def missing_weights(self, raw: Mapping[str, Any]) -> dict[str, str]:
        """What the flat component misses, by the dotted key that names it."""
        values, places = self.flat(raw)
        found = self.component.missing_weights(values)
        return {".".join(map(str, self.place((key,), places))): text for key, text in found.items()}

    def place(self, location: tuple[int | str, ...], places: Mapping[str, Place]) -> tuple[int | str, ...]:
        """Where a flat key was given, or else where the original has it."""
        if not location:
            return ()
        key = str(location[0])
        if key not in self.component.model_fields:
            return ()
        usual = (place for place, alias in self.aliases.items() if key in alias.keys)
        return (*(places.get(key) or next(usual, (key,))), *location[1:])

    def _missing(self, raw: Mapping[str, Any], keys: Collection[str]) -> Iterator[InitErrorDetails]:
        """The findings that flat keys are not given: at the key, or at the last section that is there."""
        found: dict[Place, list[str]] = {}
        for key in keys:
            place = cast(Place, self.place((key,), {}))
            depth = max(depth for depth in range(len(place)) if depth == 0 or _at(raw, place[:depth]) is not None)
            if depth == len(place) - 1:
                yield _finding(place, "is required", None)
            else:
                found.setdefault(place[:depth], []).append(".".join(place))
        for place, names in found.items():
            yield _finding(place, f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} required", None)

    def _given(self, raw: Mapping[str, Any]) -> Iterator[tuple[str, Place, Any]]:
        """Yields (flat key, place, value) of everything that is given; null at an original's key is nothing."""
        for place, alias in self.aliases.items():
            value = _at(raw, place)
            if value is not None:
                for key in alias.keys:
                    yield key, place, alias.convert(value)
        for section in (*self.sections, ()):
            inside = _at(raw, section)
            if isinstance(inside, Mapping):
                for key in self.component.model_fields:
                    if key in inside and (*section, key) not in self.aliases:
                        yield key, (*section, key), inside[key]

    def _contradictions(
        self, raw: Mapping[str, Any], values: Mapping[str, Any], places: Mapping[str, Place]
    ) -> Iterator[InitErrorDetails]:
        for key, place, value in self._given(raw):
            if value != values[key]:
                first = ".".join(places[key])
                message = f"is {value!r}, but {first} is {values[key]!r}: give one of them"
                yield _finding(place, message, value)


def dtype_of(precision: str) -> str:
    """The original's `mixed_precision` as our `dtype`."""
    return "fp32" if precision == "no" else precision


def precision_of(dtype: str | None) -> str | None:
    """Our `dtype` as the original's `mixed_precision`."""
    return "no" if dtype == "fp32" else dtype


def named(raw: Mapping[str, Any], places: Collection[Place]) -> list[str]:
    """Those of some keys that a configuration gives, dotted."""
    return [".".join(place) for place in places if _at(raw, place) is not None]


def _subject(detail: Mapping[str, Any]) -> Place:
    """What a finding about several keys speaks of first: "height is 100: …"."""
    return (_text(detail).split(maxsplit=1)[0].rstrip(":"),)


def _text(detail: Mapping[str, Any]) -> str:
    return str(detail["msg"]).removeprefix("Value error, ")


def _at(raw: Any, place: Place) -> Any:
    for key in place:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def _finding(place: tuple[int | str, ...], message: str, value: Any) -> InitErrorDetails:
    kind = PydanticCustomError("translated", cast(LiteralString, message))
    return InitErrorDetails(type=kind, loc=place, input=value)
