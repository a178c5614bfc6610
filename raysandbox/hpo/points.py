"""Points of a search, each by its number: those of a grid, those of a seeded chance, those that were given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from raysandbox.hpo.schema import Search

__all__ = ["FixedPoints", "KnownPoint", "PointSource", "Proposal", "given_points", "same_values"]


@dataclass(frozen=True)
class Proposal:
    """A point: its values, and the coordinates that the algorithm proposed for some of them."""

    params: Mapping[str, Any]
    sampled: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class KnownPoint:
    """A point that was suggested already.

    Attributes:
        point: its number.
        proposal: its values.
        ended: whether all of its trials ended.
        value: mean over those that have one; None when none has, or while it runs.
    """

    point: int
    proposal: Proposal
    ended: bool
    value: float | None


class PointSource(Protocol):
    """Where points come from."""

    @property
    def size(self) -> int | None:
        """How many points there are at all; None: any number."""
        ...

    def propose(self, point: int, alone: bool) -> Proposal | None:
        """The values of a new point.

        Args:
            point: its number.
            alone: no other trial runs, so that there is nothing to wait for.

        Returns:
            None, when a running trial's end has to be waited for: never with `alone`.
        """
        ...

    def told(self, point: int, value: float | None) -> None:
        """All trials of a point ended: the mean of their values, None when none has one."""
        ...


def same_values(params: Mapping[str, Any]) -> str:
    """The same text for equal values, and for equal values only: `1`, `1.0` and `True` differ."""
    return json.dumps(params, sort_keys=True, default=str)


class FixedPoints:
    """Points that depend on their number only: the given ones, then those of the grid or of the seeded chance.

    Points of the grid that were given are not repeated.
    """

    def __init__(self, search: Search, grid: bool) -> None:
        self._search = search
        self._grid = grid
        self._given = given_points(search)
        self._left_out = {same_values(params) for params in self._given}
        self._indices: list[int] = []  # of the grid's points that were not given, in order, as far as asked for
        self._next_index = 0

    @property
    def size(self) -> int | None:
        """The given points and the rest of the grid; None for random points."""
        if not self._grid:
            return None
        inside = sum(1 for text in self._left_out if self._on_grid(json.loads(text)))
        return len(self._given) + self._search.space.grid_size() - inside

    def _on_grid(self, params: Mapping[str, Any]) -> bool:
        for parameter in self._search.space.parameters:
            texts = [json.dumps(value, sort_keys=True, default=str) for value in parameter.choices() or ()]
            if json.dumps(params[parameter.name], sort_keys=True, default=str) not in texts:
                return False
        return True

    def propose(self, point: int, alone: bool) -> Proposal:
        """The point of this number; an IndexError beyond `size`."""
        if point < len(self._given):
            return Proposal(self._given[point])
        index = point - len(self._given)
        if not self._grid:
            return Proposal(self._search.space.random_point(self._search.seed, index))
        while len(self._indices) <= index:
            if self._next_index >= self._search.space.grid_size():
                raise IndexError(point)
            if same_values(self._search.space.grid_point(self._next_index)) not in self._left_out:
                self._indices.append(self._next_index)
            self._next_index += 1
        return Proposal(self._search.space.grid_point(self._indices[index]))

    def told(self, point: int, value: float | None) -> None:
        """Nothing: later points do not depend on earlier ones."""


def given_points(search: Search) -> list[dict[str, Any]]:
    """`points_to_evaluate`, in the order of the space; what a point leaves out is drawn for it."""
    points: list[dict[str, Any]] = []
    for index, given in enumerate(search.points_to_evaluate):
        drawn = search.space.random_point(search.seed, index)
        points.append({name: given.get(name, value) for name, value in drawn.items()})
    return points
