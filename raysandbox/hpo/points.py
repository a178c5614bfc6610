"""Points of a search, each by its number: those of a grid, those of a seeded chance, those that were given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from raysandbox.core.keys import canonical_json

if TYPE_CHECKING:
    from raysandbox.hpo.schema import Search

__all__ = ["Event", "FixedPoints", "KnownPoint", "PointSource", "Proposal", "given_points"]

Event = Literal["on_trial_result", "on_pause", "on_unpause"]  # methods of Tune's searchers


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
        time: how many values the longest of its trials reported.
    """

    point: int
    proposal: Proposal
    ended: bool
    value: float | None
    time: int = 1


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

    def heard(self, point: int, event: Event, result: Mapping[str, Any] | None = None) -> None:
        """What Tune says of a trial of a point on its way: a result, that it is paused, that it goes on."""
        ...


class FixedPoints:
    """Points that depend on their number only: the given ones, then those of the grid or of the seeded chance.

    Points of the grid that were given are not repeated.
    """

    def __init__(self, search: Search, grid: bool) -> None:
        self._space, self._seed, self._grid = search.space, search.seed, grid
        self._given = given_points(search)
        self._left_out = {text for params in self._given if (text := self._on_grid(params))} if grid else set[str]()
        self._indices: list[int] = []  # of the grid's points that were not given, in order, as far as asked for
        self._next_index = 0

    @property
    def size(self) -> int | None:
        """The given points and the rest of the grid; None for random points."""
        if not self._grid:
            return None
        return len(self._given) + self._space.grid_size() - len(self._left_out)

    def _on_grid(self, params: Mapping[str, Any]) -> str | None:
        """The point of the grid that these values are, as text; None when there is none."""
        if not all(parameter.contains(params[parameter.name]) for parameter in self._space.parameters):
            return None
        nearest = {p.name: p.at(p.quantile(params[p.name])) for p in self._space.parameters}
        return canonical_json(nearest)

    def propose(self, point: int, alone: bool) -> Proposal:
        """The point of this number; an IndexError beyond `size`."""
        if point < len(self._given):
            return Proposal(self._given[point])
        index = point - len(self._given)
        if not self._grid:
            return Proposal(self._space.random_point(self._seed, index))
        while len(self._indices) <= index:
            if canonical_json(self._space.grid_point(self._next_index)) not in self._left_out:
                self._indices.append(self._next_index)
            self._next_index += 1
        return Proposal(self._space.grid_point(self._indices[index]))

    def told(self, point: int, value: float | None) -> None:
        """Nothing: later points do not depend on earlier ones."""

    def heard(self, point: int, event: Event, result: Mapping[str, Any] | None = None) -> None:
        """Nothing, likewise."""


def given_points(search: Search) -> list[dict[str, Any]]:
    """`points_to_evaluate`, in the order of the space; what a point leaves out is drawn for it."""
    points: list[dict[str, Any]] = []
    for index, given in enumerate(search.points_to_evaluate):
        drawn = search.space.random_point(search.seed, index)
        points.append({name: given.get(name, value) for name, value in drawn.items()})
    return points
