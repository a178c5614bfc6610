"""What may run at the same time: the demands of jobs against what the cluster holds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from raysandbox.config.schema import JobEntry
from raysandbox.executors.base import INFERENCES, TRAINERS
from raysandbox.hooks.base import Hook
from raysandbox.runtime.placement import Resources, bundle, how_many, labels_fit
from raysandbox.runtime.session import Cluster, Node

__all__ = ["NOTHING", "Demand", "Space", "demand_of", "fit_together"]

_RECENT_S = 1.0  # a cluster hardly changes in less; asking for it takes calls to Ray


@dataclass(frozen=True)
class Demand:
    """What a piece of work holds while it runs.

    Attributes:
        workers: of its actors, each on one node; None for none.
        processors: of the driver's machine.
        tasks: whether it may run Ray Data's tasks, for which a CPU beside all actors is left.
    """

    workers: Resources | None = None
    processors: int = 0
    tasks: bool = False


NOTHING = Demand()  # of what is taken from its marker


def demand_of(entry: JobEntry, hook: type[Hook], cluster: Cluster) -> Demand:
    """What a job, or one element of a `foreach` job, needs.

    Trainings hold all of their workers at once and run no tasks meanwhile. Generations begin with one
    worker and share what there is. What runs in the driver's process takes one of its processors.
    """
    given = Resources.model_validate(entry.config.resources)
    trains = hook.components is TRAINERS
    if not (hook.uses_workers or hook.components is INFERENCES or given.model_fields_set):
        return Demand(processors=1, tasks=True)
    workers = given.num_workers if hook.components is not INFERENCES else 1
    gpus = given.num_gpus
    if not trains and "num_gpus" not in given.model_fields_set and cluster.total("GPU") >= workers:
        gpus = 1.0  # as the job's workers take one each where there are as many
    return Demand(given.model_copy(update={"num_workers": workers, "num_gpus": gpus}), tasks=not trains)


def fit_together(demands: Sequence[Demand], cluster: Cluster) -> bool:
    """Whether a cluster holds all demands at once, in the order in which they came.

    Nobody knows where Ray puts a group's bundles: this says that there is a way.
    """
    nodes = [_Room(node, dict(node.resources)) for node in cluster.nodes]
    processors = sum(demand.processors for demand in demands)
    if processors > (os.cpu_count() or 1):
        return False
    wanted = [demand.workers for demand in demands if demand.workers is not None]
    if processors and cluster.local:  # the driver's machine is the cluster's
        wanted += [Resources(num_cpus=1)] * processors  # pyright: ignore[reportCallIssue]
    elif any(demand.tasks for demand in demands):
        wanted.append(Resources(num_cpus=1))  # pyright: ignore[reportCallIssue]
    return all(_place(resources, nodes) for resources in wanted)


@dataclass
class Space:
    """What demands must fit into: a cluster as it was a moment ago.

    Attributes:
        look: the cluster as it is.
    """

    look: Callable[[], Cluster]
    _seen: Cluster | None = None
    _looked: float = field(default=0.0)

    def holds(self, demands: Sequence[Demand]) -> bool:
        """Whether there is room for all demands at once."""
        if self._seen is None or time.monotonic() - self._looked > _RECENT_S:
            self._seen, self._looked = self.look(), time.monotonic()
        return fit_together(demands, self._seen)


@dataclass
class _Room:
    """A node and what of it is left."""

    node: Node
    free: dict[str, float]

    def holds(self, one: Mapping[str, float]) -> int:
        """How many bundles there is room for."""
        return how_many(Node(self.node.name, self.free), one)

    def take(self, one: Mapping[str, float], count: int) -> None:
        """Puts bundles there."""
        for name, amount in one.items():
            self.free[name] = self.free.get(name, 0.0) - amount * count


def _place(resources: Resources, rooms: Sequence[_Room]) -> bool:
    """Puts a group's bundles on nodes; whether all found a place."""
    one, left = bundle(resources), resources.num_workers
    fitting = [room for room in rooms if labels_fit(room.node, resources.label_selector)]
    most = 1 if resources.strategy == "STRICT_SPREAD" else left
    if resources.strategy == "STRICT_PACK":
        fitting = [room for room in fitting if room.holds(one) >= left][:1]
    for room in fitting:
        count = min(most, left, room.holds(one))
        room.take(one, count)
        left -= count
        if not left:
            return True
    return False
