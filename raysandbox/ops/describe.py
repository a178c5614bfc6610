"""What a user asks about an operator: for `ls ops` and the generated reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysandbox.core.describe import Key, describe_keys
from raysandbox.ops.base import OPERATORS, Deduplicator, Filter, Mapper, Operator, Selector
from raysandbox.ops.bridge import PeerOperator, kind_of
from raysandbox.ops.model_filter import ModelFilter

__all__ = ["KINDS", "SHARED", "OperatorFacts", "declared_keys", "facts_of", "operators_by_kind", "peers_by_kind"]

KINDS = ("filter", "mapper", "deduplicator", "selector")
# Classes whose parameters are described once, not with every operator.
SHARED: dict[str, type[Operator]] = {
    "All operators": Operator,
    "Filters": Filter,
    "Filters with a model": ModelFilter,
    "Operators of Data-Juicer": PeerOperator,
}
_BASES = {"filter": Filter, "mapper": Mapper, "deduplicator": Deduplicator, "selector": Selector}
_COLUMNS = ("text", "image", "video", "audio")


@dataclass(frozen=True)
class OperatorFacts:
    """An operator, as far as a user sees it.

    Attributes:
        name: its name in a recipe.
        kind: filter, mapper, deduplicator or selector; for Data-Juicer's also others.
        summary: one line.
        parameters: its own parameters.
        shared: names of its parameters that classes of `SHARED` declare.
        statistics: each statistic, with the parameters that bound it.
        model: whether it loads a model, and so gains from a GPU.
        peer: whether it is Data-Juicer's.
        example: a valid configuration.
    """

    name: str
    kind: str
    summary: str
    parameters: tuple[Key, ...]
    shared: tuple[str, ...]
    statistics: tuple[str, ...]
    model: bool
    peer: bool
    example: Mapping[str, Any]


def facts_of(cls: type[Operator]) -> OperatorFacts:
    """What there is to say about an operator's class."""
    peer = issubclass(cls, PeerOperator)
    keys = [key for key in describe_keys(cls) if key.name not in cls.no_meaning_here]
    declared = [key for base in SHARED.values() if issubclass(cls, base) for key in declared_keys(base)]
    own = tuple(key for key in keys if key not in declared)
    columns = set(cls.entry.get("reads", ())) if peer else {f"{kind}_key" for kind in _COLUMNS if kind in cls.reads}
    shared = [key.name for key in keys if key not in own and (not key.name.endswith("_key") or key.name in columns)]
    stats = cls.stats if issubclass(cls, Filter) else ()
    return OperatorFacts(
        name=cls.type_name,
        kind=kind_of(cls.type_name) if peer else _kind(cls),
        summary=cls.summary(),
        parameters=own,
        shared=tuple(shared),
        statistics=tuple(_bounded(stat.key, stat.lower, stat.upper) for stat in stats),
        model=cls.needs_model,
        peer=peer,
        example=cls.example,
    )


def declared_keys(cls: type[Operator]) -> list[Key]:
    """The parameters that a class itself adds."""
    return [key for key in describe_keys(cls) if key.name in cls.__annotations__]


def _kind(cls: type[Operator]) -> str:
    return next((kind for kind, base in _BASES.items() if issubclass(cls, base)), "operator")


def _bounded(key: str, lower: str | None, upper: str | None) -> str:
    bounds = " to ".join(bound for bound in (lower, upper) if bound)
    return f"{key} ({bounds})" if bounds else key


def operators_by_kind() -> dict[str, list[OperatorFacts]]:
    """Our operators, and those of installed packages, sorted by name."""
    facts = [facts_of(OPERATORS.get(name)) for name in OPERATORS.names()]
    kinds = dict.fromkeys((*KINDS, *(each.kind for each in facts)))
    return {kind: [each for each in facts if each.kind == kind] for kind in kinds}


def peers_by_kind() -> dict[str, list[str]]:
    """Names of the operators that only Data-Juicer has; less those that cannot be part of a plan."""
    names: dict[str, list[str]] = {}
    for name in OPERATORS.provided_names():
        names.setdefault(kind_of(name), []).append(name)
    return {kind: found for kind, found in names.items() if kind != "pipeline"}
