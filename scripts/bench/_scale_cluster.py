"""Of `scale`: what the driver does for thousands of workers; Ray is a stand-in that answers at once.

So these are the driver's own seconds. What Ray itself takes is in the part `ray`.
"""

from __future__ import annotations

import sys
import time
import types
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _scale_parts import Rows

from raysandbox.runtime import claims, draining
from raysandbox.runtime.claims import Owner, group_name
from raysandbox.runtime.crew import Crew
from raysandbox.runtime.fairness import fair_share
from raysandbox.runtime.meter import Meter
from raysandbox.runtime.placement import Resources, most_workers, resources_problem
from raysandbox.runtime.places import ElasticPlaces
from raysandbox.runtime.session import Cluster, Node
from raysandbox.runtime.slots import Task
from raysandbox.runtime.worker_log import WorkerAddress

NODES, FEW_NODES = 1_000, 20
GPUS = 8  # of a node
PER_CALL = 250  # workers, of which one ends between two looks: a look takes 10 ms, a unit some seconds
UNITS_EACH = 4  # of a worker, in the crew
RIVALS = 2  # other experiments that want GPUs
PLAN_S = 0.5
UNITS_PER_S = 1_000  # 8,000 workers whose units take 8 s


def _cluster(small: bool) -> Cluster:
    count = FEW_NODES if small else NODES
    one = {"CPU": 96.0, "GPU": float(GPUS), "accelerator_type:H100": 1.0, "memory": 1e12, "object_store_memory": 1e11}
    nodes = tuple(
        Node(
            f"10.0.{n // 250}.{n % 250}",
            {**one, f"node:{n}": 1.0},
            {"ray.io/node-id": f"{n:056x}", "zone": f"z{n % 3}"},
        )
        for n in range(count)
    )
    return Cluster(nodes, {"CPU": 96.0 * count, "GPU": GPUS * count}, local=False)


def measure_planning(folder: Path, rows: Rows) -> None:
    """Whether, where and how many workers fit into a thousand nodes, and each experiment's share."""
    cluster = _cluster(rows.small)
    workers = len(cluster.nodes) * GPUS
    resources = Resources.model_validate(
        {"num_workers": workers, "num_gpus": 1, "accelerator_type": "H100", "label_selector": {"zone": "!z9"}}
    )
    with rows.timed("do as many workers fit as there are GPUs", len(cluster.nodes), "nodes", most_s=PLAN_S) as row:
        assert resources_problem(resources, cluster) is None
    row.facts["workers"] = workers
    with rows.timed("how many workers fit", len(cluster.nodes), "nodes", most_s=PLAN_S):
        assert most_workers(resources, cluster) == workers
    draining._told = lambda: {}  # type: ignore[assignment] # asks Ray
    fairness: Any = sys.modules["raysandbox.runtime.fairness"]
    fairness.own_experiment = claims.own_experiment = lambda: "run 0"
    own, table = Owner.new("bench.generate#0", elastic=True), _groups(resources, workers, cluster)
    with rows.timed("fair share beside others, placement groups", len(table), "groups", most_s=2.0):
        fair_share(own, resources, cluster, table)
    with rows.timed("the same two seconds later", len(table), "groups", most_s=PLAN_S) as row:
        share = fair_share(own, resources, cluster, table)
    row.facts["share"] = share


def _groups(resources: Resources, held: int, cluster: Cluster) -> list[Mapping[str, Any]]:
    """A placement group per GPU, and as many that wait, of several experiments."""
    found = []
    for rival in range(1, RIVALS + 1):
        owner = Owner.new(f"other{rival}.generate#0", elastic=True)
        for number in range(2 * held // RIVALS):
            waits = number % 2 == 1
            name = group_name(owner, resources.label_selector).replace('"run 0"', f'"run {rival}"')
            node = cluster.nodes[number % len(cluster.nodes)].labels["ray.io/node-id"]
            found.append(
                {
                    "name": name,
                    "state": "PENDING" if waits else "CREATED",
                    "bundles": {0: {"GPU": 1.0, "CPU": 1.0}},
                    "bundles_to_node_id": {0: "" if waits else node},
                }
            )
    return found


@dataclass(frozen=True)
class _Job:
    """A job with a GPU for each worker."""

    resources: Resources
    id: str = "bench.generate#0"
    runtime_env: Mapping[str, Any] = field(default_factory=dict)


class _Ref:
    """A reference; ready at once, or once it is asked for."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Method:
    def __init__(self, ray: _Ray, answer: Any) -> None:
        self._ray, self._answer = ray, answer

    def remote(self, *args: Any) -> _Ref:
        """A call that ends later."""
        return self._ray.begun(_Ref(self._answer(*args)))


class _Actor:
    """What the crew asks of a worker."""

    def __init__(self, ray: _Ray, number: int) -> None:
        node = ray._nodes[number // GPUS]["NodeID"]
        self.start = _Method(ray, lambda: WorkerAddress(node, 1000 + number, "/nowhere/at-all", secrets=frozenset()))
        self.load = _Method(ray, lambda *_: None)
        self.run = _Method(ray, lambda unit: (unit, 8.0, 90.0))


class _Ray(types.ModuleType):
    """A stand-in for Ray whose calls end one after the other, `at_once` between two waits."""

    def __init__(self, cluster: Cluster, at_once: int) -> None:
        super().__init__("ray")
        self.__version__ = "0"
        self.calls: dict[str, int] = {}
        self._at_once = at_once
        self._nodes = [
            {
                "NodeID": node.labels["ray.io/node-id"],
                "NodeManagerAddress": node.name,
                "NodeManagerHostname": node.name,
                "Alive": True,
                "Resources": dict(node.resources),
                "Labels": dict(node.labels),
            }
            for node in cluster.nodes
        ]
        self._free = dict(cluster.free)
        self._pending: deque[_Ref] = deque()
        self._ended: set[_Ref] = set()
        self.groups: dict[int, dict[str, Any]] = {}
        self.actors = 0

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    def begun(self, ref: _Ref) -> _Ref:
        """A call on its way."""
        self._pending.append(ref)
        return ref

    def wait(self, refs: Sequence[_Ref], num_returns: int = 1, timeout: float | None = None, **_: Any) -> Any:
        """What has ended; `at_once` more calls end when something is waited for."""
        self._count("wait")
        if timeout:
            for _n in range(min(max(self._at_once, num_returns), len(self._pending))):
                self._ended.add(self._pending.popleft())
        ready = []
        for ref in refs:
            if ref in self._ended:
                ready.append(ref)
                if len(ready) == num_returns:
                    break
        return ready, []

    def get(self, ref: _Ref, **_: Any) -> Any:
        """Its value."""
        self._ended.discard(ref)
        return ref.value

    def nodes(self) -> list[dict[str, Any]]:
        """As many as Ray lists; a copy, as Ray makes one."""
        self._count("nodes")
        return [dict(node) for node in self._nodes]

    def available_resources(self) -> dict[str, float]:
        """What is free."""
        self._count("available_resources")
        return self._free

    def kill(self, actor: Any) -> None:
        """Nothing."""

    def get_runtime_context(self) -> Any:
        """Of a driver on no node of the cluster."""
        return types.SimpleNamespace(get_node_id=lambda: "driver", get_job_id=lambda: "run 0")

    def is_initialized(self) -> bool:
        """Yes."""
        return True


class _Group:
    def __init__(self, ray: _Ray, number: int) -> None:
        self._ray, self.number = ray, number
        self.id = types.SimpleNamespace(hex=lambda: str(number))

    def ready(self) -> _Ref:
        """Held a little later."""
        return self._ray.begun(_Ref(None))


def _install(ray: _Ray) -> None:
    """Puts the stand-in in the place of Ray for what the runtime imports inside of functions."""
    util = types.ModuleType("ray.util")
    exceptions = types.ModuleType("ray.exceptions")
    exceptions.RayError = exceptions.RayActorError = type("RayError", (Exception,), {})  # type: ignore[attr-defined]

    def placement_group(bundles: Sequence[Mapping[str, float]], name: str = "", **_: Any) -> _Group:
        ray._count("placement_group")
        group = _Group(ray, len(ray.groups))
        ray.groups[group.number] = {
            "placement_group_id": str(group.number),
            "name": name,
            "state": "CREATED",
            "bundles": dict(enumerate(bundles)),
            "bundles_to_node_id": {0: ray._nodes[group.number // GPUS % len(ray._nodes)]["NodeID"]},
        }
        return group

    def placement_group_table(group: _Group | None = None) -> Any:
        ray._count("placement_group_table" if group else "placement_group_table of all")
        return ray.groups[group.number] if group else {str(number): each for number, each in ray.groups.items()}

    util.placement_group, util.placement_group_table = placement_group, placement_group_table  # type: ignore[attr-defined]
    util.remove_placement_group = lambda group: ray.groups.pop(group.number)  # type: ignore[attr-defined]
    ray.util, ray.exceptions = util, exceptions  # type: ignore[attr-defined]
    metrics = types.ModuleType("ray.util.metrics")
    metrics.Counter = metrics.Gauge = metrics.Histogram = _NoMetric  # type: ignore[attr-defined]
    util.metrics = metrics  # type: ignore[attr-defined]
    sys.modules |= {"ray": ray, "ray.util": util, "ray.util.metrics": metrics, "ray.exceptions": exceptions}


class _NoMetric:
    """Counts nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.set = self.inc = self.observe = lambda *_: None


class _Silent:
    """A follower of a log that has nothing to say; counts how often it is asked."""

    asked = 0

    def __init__(self, address: WorkerAddress, *_: Any) -> None:
        self.node, self.tail = address.node_id, ""

    def pull(self, *, last: bool = False) -> None:
        """A task on the worker's node, in truth."""
        _Silent.asked += not last

    def close(self, *, wait: bool = True) -> None:
        """Nothing."""


def measure_crew(folder: Path, rows: Rows) -> None:
    """The loop that gives units to workers that come and go, with a worker on each GPU."""
    cluster = _cluster(rows.small)
    workers = len(cluster.nodes) * GPUS
    ray = _Ray(cluster, at_once=1 + workers // PER_CALL)
    _install(ray)
    draining._told = lambda: {}  # type: ignore[assignment]
    crew_module: Any = sys.modules["raysandbox.runtime.crew"]
    crew_module.start_actor = lambda *_: _counted_actor(ray)
    crew_module.LogFollower = _Silent
    resources = Resources.model_validate({"num_gpus": 1})
    units = range(workers * UNITS_EACH)
    task = Task(_Job(resources), None, units, folder / "log", None, 3, False)  # type: ignore[arg-type]
    events = 0

    def emit(event: str, **fields: Any) -> None:
        nonlocal events
        events += 1

    places = ElasticPlaces(resources, None, Owner.new("bench.generate#0", elastic=True))
    crew = Crew(task, places, emit, Meter(None))
    results = crew.run()
    with rows.timed("workers asked for, started, loaded; the first unit of each", workers, "workers") as row:
        _take(results, workers)
    row.facts |= dict(ray.calls)
    ray.calls.clear()
    left = workers * (UNITS_EACH - 2)
    _Silent.asked, began = 0, time.perf_counter()
    with rows.timed("units while all workers are there", left, "units", least_rate=UNITS_PER_S) as row:
        _take(results, left)
    row.facts |= {**ray.calls, "logs asked for per s": round(_Silent.asked / (time.perf_counter() - began))}
    with rows.timed("the last units, and the end of all workers", workers, "workers"):
        _take(results, workers)
        crew.end()
        places.close()


def _counted_actor(ray: _Ray) -> _Actor:
    ray.actors += 1
    return _Actor(ray, min(ray.actors - 1, len(ray._nodes) * GPUS - 1))


def _take(results: Any, count: int) -> None:
    for _ in range(count):
        next(results)
