"""What every node of the cluster says of itself: an actor without a CPU on each is asked at once."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from raysandbox.runtime.draining import draining_nodes
from raysandbox.runtime.machine import Machine, examine
from raysandbox.runtime.shared_storage import Probe, Seen, answer, place, reads_of, remove

__all__ = ["NODE_LIMIT_S", "ClusterReport", "Link", "NodeReport", "Request", "ask_nodes", "session_folder"]

NODE_LIMIT_S = 30.0  # for a node to answer
_LINKS_S = 30.0  # for all nodes together
_TIDY_S = 10.0
_PINGS = 5
_OBJECT_BYTES = 8 << 20


@dataclass(frozen=True)
class Request:
    """What a node is asked.

    Attributes:
        folders: role → local path to look at.
        probes: the driver's probe files.
        packages: whose versions are wanted besides those that always are.
    """

    folders: Mapping[str, str]
    probes: tuple[Probe, ...] = ()
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """What lies between the driver and a node.

    Attributes:
        round_trip: seconds of an empty call there and back, the shortest of a few.
        clock: seconds that the node's clock is ahead of the driver's; off by half a round trip at most.
        bandwidth: bytes per second of an object of 8 MB that the node fetched, None on the driver's node.
    """

    round_trip: float
    clock: float
    bandwidth: float | None = None


@dataclass(frozen=True)
class NodeReport:
    """A node.

    Attributes:
        id: Ray's id.
        address: its address.
        state: alive, draining or dead.
        reason: why it is dead, or until when it drains.
        resources: totals by Ray's names.
        is_drivers: whether the driver is there.
        machine: what it said, None when it did not.
        error: why it did not.
        seen: what it saw of the storage.
        link: see there; None when it was not measured.
    """

    id: str
    address: str
    state: Literal["alive", "draining", "dead"] = "alive"
    reason: str = ""
    resources: Mapping[str, float] = field(default_factory=dict)
    is_drivers: bool = False
    machine: Machine | None = None
    error: str = ""
    seen: tuple[Seen, ...] = ()
    link: Link | None = None


@dataclass(frozen=True)
class ClusterReport:
    """The nodes, and the driver's probe files."""

    nodes: tuple[NodeReport, ...]
    probes: tuple[Probe, ...] = ()


class _Visitor:
    """Answers on a node."""

    def examine(self, request: Request, who: str) -> tuple[Machine, tuple[Seen, ...]]:
        """Looks at the machine and at the storage."""
        folders = {**request.folders, "Ray's session": session_folder()}
        machine = examine(folders, more_packages=request.packages)
        return machine, tuple(answer(probe, who) for probe in request.probes if not probe.error)

    def tidy(self, probes: Sequence[Probe], who: str) -> None:
        """Removes the node's probe files: those in a folder of its own nobody else can."""
        for probe in probes:
            remove(probe, who)

    def clock(self) -> float:
        """This machine's time."""
        return time.time()

    def fetch(self, references: Sequence[Any], limit_s: float) -> float:
        """Seconds until an object was here."""
        import ray

        start = time.perf_counter()
        ray.get(references[0], timeout=limit_s)  # waits: who asked says what its end means
        return time.perf_counter() - start


def session_folder() -> str:
    """Where Ray keeps sessions, logs and objects that do not fit into memory."""
    ray = sys.modules.get("ray")  # not imported for this: it takes a while
    if ray is not None and ray.is_initialized():
        return str(ray.get_runtime_context().get_temp_dir())
    return os.path.join(os.environ.get("RAY_TMPDIR") or "/tmp", "ray")


def ask_nodes(request: Request, storage: Mapping[str, str], *, limit_s: float = NODE_LIMIT_S) -> ClusterReport:
    """Asks every node that is alive; a node that does not answer costs `limit_s`, however many there are.

    Args:
        request: what is asked; its probes are made here.
        storage: role → folder or URL that all nodes should share.
        limit_s: seconds for the nodes to answer.
    """
    import ray

    nodes = _nodes()
    probes = tuple(place(role, path) for role, path in storage.items())
    request = replace(request, probes=probes)
    alive = [node for node in nodes if node.state == "alive"]  # a draining one gets no new work
    visitors = {node.id: _visitor(node) for node in alive}
    try:
        asked = {node.id: visitors[node.id].examine.remote(request, node.id) for node in alive}
        if asked:
            # waits: each answer that is missing is told below
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=limit_s, fetch_local=False)
        answered = [_answered(node, asked.get(node.id), probes, limit_s) for node in nodes]
        return ClusterReport(tuple(_with_links(answered, visitors)), probes)
    finally:
        _tidy(probes, visitors)


def _tidy(probes: Sequence[Probe], visitors: Mapping[str, Any]) -> None:
    """Removes every probe file and ends the visitors."""
    import ray

    written = [probe for probe in probes if not probe.error]
    for probe in written:
        remove(probe)
    if written and visitors:
        tidied = [visitor.tidy.remote(written, node) for node, visitor in visitors.items()]
        ray.wait(tidied, num_returns=len(tidied), timeout=_TIDY_S)  # waits: files that stay are small
    for visitor in visitors.values():
        ray.kill(visitor)


def _nodes() -> list[NodeReport]:
    import ray

    own = ray.get_runtime_context().get_node_id()
    draining = draining_nodes()
    found = []
    for node in ray.nodes():
        kind: Literal["alive", "draining", "dead"] = "alive" if node["Alive"] else "dead"
        reason = "" if node["Alive"] else str(node.get("DeathReasonMessage") or "").strip().split("\n")[0]
        if node["Alive"] and node["NodeID"] in draining:
            kind, seconds = "draining", draining[node["NodeID"]]
            reason = "without a deadline" if math.isinf(seconds) else f"ends in {seconds:.0f} s"
        found.append(
            NodeReport(
                node["NodeID"],
                node["NodeManagerAddress"],
                kind,
                reason,
                dict(node["Resources"]),
                node["NodeID"] == own,
            )
        )
    return sorted(found, key=lambda node: (not node.is_drivers, node.address))


def _visitor(node: NodeReport) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(_Visitor).options(num_cpus=0, max_restarts=0, scheduling_strategy=strategy).remote()


def _answered(node: NodeReport, reference: Any, probes: Sequence[Probe], limit_s: float) -> NodeReport:
    import ray
    from ray.exceptions import GetTimeoutError

    if reference is None:
        return node
    try:
        machine, seen = ray.get(reference, timeout=0.5)
    except GetTimeoutError:
        return replace(node, error=f"no answer in {limit_s:g} s")
    except Exception as error:  # noqa: BLE001 - whatever keeps a node from answering is what is to be said
        return replace(node, error=_reason(error))
    by_role = {probe.role: probe for probe in probes}
    seen = tuple(one if one.wrote else replace(one, returned=reads_of(by_role[one.role], node.id)) for one in seen)
    return replace(node, machine=machine, seen=seen)


def _reason(error: Exception) -> str:
    """What kept a node from answering: the last line says it, before are Ray's own frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _with_links(nodes: Sequence[NodeReport], visitors: Mapping[str, Any]) -> list[NodeReport]:
    """Measures one node after the other, so that they do not share the driver's line."""
    import ray

    thing = ray.put(os.urandom(_OBJECT_BYTES))
    end = time.monotonic() + _LINKS_S
    found = []
    for node in nodes:
        link = None
        if node.machine is not None and time.monotonic() < end:
            with contextlib.suppress(Exception):  # it has answered before: what is lost is a number
                link = _link(visitors[node.id], thing, node, end)
        found.append(replace(node, link=link))
    return found


def _link(visitor: Any, thing: Any, node: NodeReport, end: float) -> Link:
    import ray

    def left() -> float:
        return max(end - time.monotonic(), 0.1)

    pings = []
    for _ in range(_PINGS):
        start, sent = time.perf_counter(), time.time()
        there: Any = ray.get(visitor.clock.remote(), timeout=left())  # waits: the caller catches its end
        seconds = time.perf_counter() - start
        pings.append((seconds, float(there) - sent - seconds / 2))
    round_trip, clock = min(pings)
    if node.is_drivers:
        return Link(round_trip, clock)
    # waits: the caller catches its end
    took: Any = ray.get(visitor.fetch.remote([thing], left()), timeout=left())
    return Link(round_trip, clock, _OBJECT_BYTES / float(took))
