"""What a crew does, and each of its workers from the wish for it to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.runner import UnitWork
from raysandbox.runtime.actors import WorkerJob
from raysandbox.runtime.places import Place
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress

__all__ = ["Outcome", "Seat", "Slot", "Task", "nodes_by_id"]


@dataclass(frozen=True)
class Task:
    """What a crew does.

    Attributes:
        job: whose it is.
        work: what is done with each unit.
        units: the units.
        log: the job's log; the output of worker 1 goes to `LOG.1.log`, and so on.
        python: the interpreter of another environment.
        tries: how often a unit that raises is done; None where that ends the work.
        has_gpu: whether each worker holds a GPU, or a share of one.
        stall_timeout_s: after how long at one unit, or at loading, a worker counts as lost; None for never.
    """

    job: WorkerJob
    work: UnitWork
    units: Sequence[Any]
    log: Path
    python: str | None
    tries: int | None
    has_gpu: bool
    stall_timeout_s: float | None = None


Seat = tuple[str, int]  # node and number of a worker
Outcome = tuple[int, Any]  # a unit and its result


@dataclass(eq=False)
class Slot:
    """A worker, from the wish for it to its end.

    Attributes:
        place: where it works.
        call: what is waited for: its bundle, its start, its loading, a unit; None when it has nothing to do.
        actor: None until it has a bundle.
        address: None until it has started.
        loaded: whether it can do units.
        unit: index of the unit that it does.
        began: when its latest call was made, in seconds.
        noticed: whether that call was said to take long.
        failures: units that failed on it since the last that did not.
        leaving: whether its node is about to go: it does its unit, if there is time, and no other.
    """

    place: Place
    call: Any = None
    actor: Any = None
    address: WorkerAddress | None = None
    follower: LogFollower | None = None
    loaded: bool = False
    unit: int | None = None
    began: float = field(default_factory=time.monotonic)
    noticed: bool = False
    failures: int = 0
    leaving: bool = False

    def calls(self, call: Any) -> None:
        """What is waited for from now on."""
        self.call, self.began, self.noticed = call, time.monotonic(), False

    @property
    def seat(self) -> Seat:
        """Where it works, the same for the one that follows it there."""
        return self.address.node_id if self.address else "", self.place.number


def nodes_by_id() -> Mapping[str, Mapping[str, Any]]:
    """The nodes by their ids, those that went too."""
    import ray

    return {node["NodeID"]: node for node in ray.nodes()}
