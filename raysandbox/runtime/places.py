"""Where the workers of a job may start: bundles that it holds all at once, or that come and go.

A place is one bundle of a placement group. `FixedPlaces` holds one group of all bundles from the
beginning to the end; `ElasticPlaces` asks for a group of its own for each worker, as many as the
cluster may hold now, and gives it back when its worker has ended.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from raysandbox.runtime.claims import Owner, groups
from raysandbox.runtime.draining import draining_nodes, staying
from raysandbox.runtime.fairness import fair_share
from raysandbox.runtime.placement import (
    Resources,
    ask_for,
    held_workers,
    look_at_wait,
    most_workers,
    placement_group_for,
)
from raysandbox.runtime.polling import Patience
from raysandbox.runtime.session import cluster_summary

__all__ = ["ElasticPlaces", "FixedPlaces", "Place", "Places", "places_for"]

_LOOK_S = 2.0  # how old the count of the cluster's GPUs, and what others want of them, may be
_LIST_S = 0.4  # how old the list of placement groups may be that stand


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

    def node_of(self, place: Place) -> str | None:
        """The id of the node that holds the bundle of a place, if one does."""
        ...

    def share(self) -> int | None:
        """How many workers there may be while others on the cluster want some too; None while nobody does."""
        ...

    def check(self, started: bool) -> None:
        """Called every now and then: there is a worker that has a bundle, or there is none.

        Raises:
            JobFailed: there was none for longer than `resources.timeout_s`.
        """
        ...


@contextlib.contextmanager
def places_for(resources: Resources, elastic: bool, number: int | None, job: str = "") -> Iterator[Places]:
    """The places of a job's workers while the block runs.

    Args:
        resources: of one worker, and how many where places are fixed.
        elastic: whether workers come and go; inside of a trial they are as many as it has bundles for.
        number: of elastic workers; None for as many as the cluster holds.
        job: whose they are, for messages.

    Raises:
        JobFailed: the resources cannot be had.
    """
    held = held_workers(resources)
    if elastic and held is None:
        places = ElasticPlaces(resources, number, Owner.new(job, elastic=True))
        try:
            yield places
        finally:
            places.close()
    else:
        size = min(held, number or held) if elastic and held else resources.num_workers
        owner = Owner.new(job)
        with placement_group_for(resources.model_copy(update={"num_workers": size}), owner=owner) as group:
            places = FixedPlaces(group, size, resources, owner)
            try:
                yield places
            finally:
                places.close()


class _Apart:
    """Placement groups of one bundle each.

    Attributes:
        one: what each holds.
        owner: whose they are.
    """

    def __init__(self, resources: Resources, owner: Owner) -> None:
        self.one = resources.model_copy(update={"num_workers": 1, "strategy": "PACK"})
        self.owner = owner
        self.held: dict[int, Any] = {}
        self._patience = Patience(resources.timeout_s)

    def take(self, number: int) -> Place:
        """Asks for a bundle anywhere in the cluster.

        Raises:
            JobFailed: a local Ray can never hold it.
        """
        group = self.held[number] = ask_for(self.one, self.owner)
        return Place(number, group, 0, group.ready())

    def give_back(self, number: int) -> None:
        """Frees what a place holds or waits for."""
        import ray.util

        ray.util.remove_placement_group(self.held.pop(number))

    def check(self, started: bool) -> None:
        """Remembers when there was a worker last; says every minute who holds what is waited for.

        Raises:
            JobFailed: there was none for too long.
        """
        if started:
            self._patience.begin()
        else:
            look_at_wait(self._patience, self.one, self.owner)

    def close(self) -> None:
        """Frees everything."""
        for number in list(self.held):
            self.give_back(number)


class FixedPlaces:
    """The bundles of one placement group; where the node of one is drained, another bundle in its stead.

    Args:
        group: the placement group, which is held.
        size: number of its bundles.
        resources: of a worker.
        owner: whose they are.
    """

    elastic = False

    def __init__(self, group: Any, size: int, resources: Resources, owner: Owner) -> None:
        self._group, self._size = group, size
        self._free = list(range(size))
        self._moved = _Apart(resources, owner)

    def wanted(self) -> int:
        """All of them."""
        return self._size

    def share(self) -> int | None:
        """They are held to the end."""
        return None

    def take(self) -> Place:
        """The first free bundle."""
        self._free.sort()
        number = self._free.pop(0)
        place = Place(number, self._group, number)
        return self._moved.take(number) if self.node_of(place) in draining_nodes() else place

    def give_back(self, place: Place) -> None:
        """Another worker may start there."""
        self._free.append(place.number)
        if place.number in self._moved.held:
            self._moved.give_back(place.number)

    def node_of(self, place: Place) -> str | None:
        """Asks Ray while nodes are drained only: nothing else needs to know."""
        return _node_of(place) if draining_nodes() else None

    def stands(self, place: Place) -> bool:
        """Ray finds another node for a bundle of the group."""
        return True

    def check(self, started: bool) -> None:
        """The bundles are held, but for those in the stead of others."""
        self._moved.check(started or not self._moved.held)

    def close(self) -> None:
        """Frees what was taken in the stead of others."""
        self._moved.close()


class ElasticPlaces:
    """A placement group for each worker.

    Args:
        resources: of the workers; their `strategy` has no meaning for single bundles.
        number: how many workers; None for as many as the cluster holds, looked at again and again,
            where each has a GPU, or else one.
        owner: whose they are.
    """

    elastic = True

    def __init__(self, resources: Resources, number: int | None, owner: Owner) -> None:
        self._apart = _Apart(resources, owner)
        self._number = number if number is not None or resources.num_gpus else 1
        self._looked = -_LOOK_S
        self._fit, self._share = 1, None
        self._free: list[int] = []  # numbers below `_next`, as a heap
        self._next = 0
        self._standing: frozenset[str] = frozenset()  # ids of groups that were held when they were listed
        self._listed = -_LIST_S

    def wanted(self) -> int:
        """The number that was given, or one for each share of a GPU; at most the fair share; one to wait for."""
        self._look()
        most = self._number if self._number is not None else max(self._fit, 1)
        return most if self._share is None else max(min(most, self._share), 1)

    def share(self) -> int | None:
        """Looked at every two seconds."""
        self._look()
        return self._share

    def _look(self) -> None:
        if time.monotonic() < self._looked + _LOOK_S:
            return
        cluster = cluster_summary()
        self._fit = most_workers(self._apart.one, staying(cluster))
        self._share = fair_share(self._apart.owner, self._apart.one, cluster, groups())
        self._looked = time.monotonic()

    def take(self) -> Place:
        """Asks for a bundle anywhere in the cluster.

        Raises:
            JobFailed: a local Ray can never hold it.
        """
        if self._free:
            return self._apart.take(heapq.heappop(self._free))
        self._next += 1
        return self._apart.take(self._next - 1)

    def give_back(self, place: Place) -> None:
        """Frees what the place holds or waits for."""
        self._apart.give_back(place.number)
        heapq.heappush(self._free, place.number)

    def node_of(self, place: Place) -> str | None:
        """Asks Ray."""
        return _node_of(place)

    def stands(self, place: Place) -> bool:
        """Looks at the placement group: it is scheduled again when its node goes.

        Thousands of workers may start at the same time: all groups are listed together, and only one that
        does not stand there is asked for by itself, since the list may be a little older.
        """
        import ray.util

        if time.monotonic() > self._listed + _LIST_S:
            self._standing = frozenset(group["placement_group_id"] for group in groups() if group["state"] == "CREATED")
            self._listed = time.monotonic()
        if place.group.id.hex() in self._standing:
            return True
        return ray.util.placement_group_table(place.group).get("state") == "CREATED"

    def check(self, started: bool) -> None:
        """Remembers when there was a worker last."""
        self._apart.check(started)

    def close(self) -> None:
        """Frees everything."""
        self._apart.close()


def _node_of(place: Place) -> str | None:
    import ray.util

    return ray.util.placement_group_table(place.group).get("bundles_to_node_id", {}).get(place.bundle)
