"""Where the workers of a job may start: bundles that it holds all at once, or that come and go.

A place is one bundle of a placement group. `FixedPlaces` holds one group of all bundles from the
beginning to the end; `ElasticPlaces` asks for a group of its own for each worker, as many as the
cluster may hold now, and gives it back when its worker has ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from raysandbox.runtime.placement import (
    Resources,
    ask_for,
    held_workers,
    most_workers,
    placement_group_for,
    waited_in_vain,
)
from raysandbox.runtime.session import cluster_summary

__all__ = ["ElasticPlaces", "FixedPlaces", "Place", "Places", "places_for"]

_LOOK_S = 2.0  # how old the count of the cluster's GPUs may be


@dataclass(frozen=True)
class Place:
    """Where one worker may start.

    Attributes:
        number: of the worker, from 0; free numbers are used again.
        group: the placement group.
        bundle: number of its bundle.
        ready: a reference that is ready once the bundle is held; None when it is held already.
    """

    number: int
    group: Any
    bundle: int
    ready: Any = None


class Places(Protocol):
    """What a crew needs to know of where it may work."""

    elastic: bool

    def wanted(self) -> int:
        """How many workers there may be now."""
        ...

    def take(self) -> Place:
        """A place for one more worker; the caller stays below `wanted`."""
        ...

    def give_back(self, place: Place) -> None:
        """Its worker has ended, or is no longer wanted there."""
        ...

    def stands(self, place: Place) -> bool:
        """Whether the bundle of a place that was ready is still held; it goes with its node."""
        ...

    def check(self, started: bool) -> None:
        """Called every now and then: there is a worker that has a bundle, or there is none.

        Raises:
            JobFailed: there was none for longer than `resources.timeout_s`.
        """
        ...


@contextlib.contextmanager
def places_for(resources: Resources, elastic: bool, number: int | None) -> Iterator[Places]:
    """The places of a job's workers while the block runs.

    Args:
        resources: of one worker, and how many where places are fixed.
        elastic: whether workers come and go; inside of a trial they are as many as it has bundles for.
        number: of elastic workers; None for as many as the cluster holds.

    Raises:
        JobFailed: the resources cannot be had.
    """
    held = held_workers(resources)
    if elastic and held is None:
        places = ElasticPlaces(resources, number)
        try:
            yield places
        finally:
            places.close()
    else:
        size = min(held, number or held) if elastic and held else resources.num_workers
        with placement_group_for(resources.model_copy(update={"num_workers": size})) as group:
            yield FixedPlaces(group, size)


class FixedPlaces:
    """The bundles of one placement group.

    Args:
        group: the placement group, which is held.
        size: number of its bundles.
    """

    elastic = False

    def __init__(self, group: Any, size: int) -> None:
        self._group, self._size = group, size
        self._free = list(range(size))

    def wanted(self) -> int:
        """All of them."""
        return self._size

    def take(self) -> Place:
        """The first free bundle."""
        self._free.sort()
        number = self._free.pop(0)
        return Place(number, self._group, number)

    def give_back(self, place: Place) -> None:
        """Another worker may start there."""
        self._free.append(place.number)

    def stands(self, place: Place) -> bool:
        """Ray finds another node for a bundle of the group."""
        return True

    def check(self, started: bool) -> None:
        """The bundles are held."""


class ElasticPlaces:
    """A placement group for each worker.

    Args:
        resources: of the workers; their `strategy` has no meaning for single bundles.
        number: how many workers; None for as many as the cluster holds, looked at again and again,
            where each has a GPU, or else one.
    """

    elastic = True

    def __init__(self, resources: Resources, number: int | None) -> None:
        self._one = resources.model_copy(update={"num_workers": 1, "strategy": "PACK"})
        self._number = number if number is not None or resources.num_gpus else 1
        self._held: dict[int, Any] = {}
        self._looked = self._had = time.monotonic()
        self._fit = most_workers(self._one, cluster_summary())

    def wanted(self) -> int:
        """The number that was given, or one for each share of a GPU; at least one to wait for."""
        if self._number is not None:
            return self._number
        if time.monotonic() > self._looked + _LOOK_S:
            self._fit = most_workers(self._one, cluster_summary())
            self._looked = time.monotonic()
        return max(self._fit, 1)

    def take(self) -> Place:
        """Asks for a bundle anywhere in the cluster.

        Raises:
            JobFailed: a local Ray can never hold it.
        """
        number = next(number for number in range(len(self._held) + 1) if number not in self._held)
        group = self._held[number] = ask_for(self._one)
        return Place(number, group, 0, group.ready())

    def give_back(self, place: Place) -> None:
        """Frees what the place holds or waits for."""
        import ray.util

        ray.util.remove_placement_group(self._held.pop(place.number))

    def stands(self, place: Place) -> bool:
        """Looks at the placement group: it is scheduled again when its node goes."""
        import ray.util

        return ray.util.placement_group_table(place.group).get("state") == "CREATED"

    def check(self, started: bool) -> None:
        """Remembers when there was a worker last."""
        if started:
            self._had = time.monotonic()
        elif time.monotonic() > self._had + self._one.timeout_s:
            raise waited_in_vain(self._one, self._one.timeout_s)

    def close(self) -> None:
        """Frees everything."""
        import ray.util

        while self._held:
            ray.util.remove_placement_group(self._held.popitem()[1])
