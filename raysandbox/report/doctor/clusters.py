"""Judges a cluster: nodes, what they share, clocks, network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from raysandbox.report.doctor.lines import Line, State, gigabytes
from raysandbox.report.doctor.machines import machine_lines
from raysandbox.report.doctor.ports import port_lines
from raysandbox.report.doctor.versions import difference_lines
from raysandbox.runtime.checkup import ClusterReport, NodeReport
from raysandbox.runtime.machine import Machine
from raysandbox.runtime.shared_storage import Probe, Seen

__all__ = ["cluster_lines", "storage_lines"]

_CLOCK_YELLOW, _CLOCK_RED = 1.0, 60.0  # seconds; signatures of object stores and TLS fail at minutes
_SLOW_CALL = 0.1  # seconds, of an empty call
_SLOW_LINE = 20e6  # bytes per second: a 1 GB checkpoint takes 50 s


def cluster_lines(report: ClusterReport, driver: Machine, wanted: Sequence[str] = ()) -> Iterator[Line]:
    """What is to be said of a cluster.

    Args:
        report: what its nodes said.
        driver: this machine.
        wanted: packages that jobs of the configuration need on every node.
    """
    names = _names(report.nodes)
    alive = [node for node in report.nodes if node.state != "dead"]
    for node in report.nodes:
        yield _node(node, names[node.id])
    yield _total(alive)
    for node in alive:
        if node.machine is not None:
            name = names[node.id]
            yield from _what_ray_holds(node, name)
            yield from machine_lines(node.machine, name, node.resources.get("object_store_memory", 0.0))
            yield from difference_lines(driver, node.machine, name, wanted)
            yield from port_lines(node.machine, name)
            yield from _link(node, name)
    yield from storage_lines(report)


def _names(nodes: Sequence[NodeReport]) -> Mapping[str, str]:
    """Node id → address; several at one address, as those that died and came again, with their ids."""
    addresses = [node.address for node in nodes]
    return {
        node.id: node.address if addresses.count(node.address) == 1 else f"{node.address}/{node.id[:6]}"
        for node in nodes
    }


def _node(node: NodeReport, name: str) -> Line:
    resources = node.resources
    has = f"{resources.get('CPU', 0.0):g} CPUs, {resources.get('GPU', 0.0):g} GPUs, "
    has += f"{gigabytes(resources.get('memory', 0.0))} for work"
    host = f" ({node.machine.host})" if node.machine else ""
    what = f"node {name}{host}" + (", the driver's" if node.is_drivers else "")
    if node.state == "dead":
        reason = f"dead: {node.reason}" if node.reason else "dead"
        return Line("nodes", what, "yellow", reason, "start it again, or forget it: Ray lists it for a while")
    if node.state == "draining":
        return Line("nodes", what, "yellow", f"is being drained, {node.reason}: gets no new work; {has}")
    if node.machine is None:
        fix = f"look at it: `ray logs raylet.out --node-ip {node.address}`; remove it if it does not come back"
        return Line("nodes", what, "red", f"{has}; {node.error}", fix)
    return Line("nodes", what, "green", has)


def _total(alive: Sequence[NodeReport]) -> Line:
    sums = {name: sum(node.resources.get(name, 0.0) for node in alive) for name in ("CPU", "GPU")}
    found = f"{len(alive)} node(s) alive, {sums['CPU']:g} CPUs, {sums['GPU']:g} GPUs"
    return Line("nodes", "cluster", "green" if alive else "red", found)


def _what_ray_holds(node: NodeReport, name: str) -> Iterator[Line]:
    assert node.machine is not None
    said, there = node.resources.get("GPU", 0.0), len(node.machine.gpus.devices)
    if said > there:
        found = f"Ray counts {said:g} GPUs, the driver {there}: they are logical"
        yield Line("GPUs", "Ray's GPUs", "yellow", found, "start the node without --num-gpus", name)
    elif said < there:
        found = f"Ray counts {said:g} GPUs of {there}"
        yield Line("GPUs", "Ray's GPUs", "yellow", found, f"start the node with --num-gpus={there}", name)


def _link(node: NodeReport, name: str) -> Iterator[Line]:
    link = node.link
    if link is None:
        yield Line("network", "calls", "yellow", "not measured: too little time", "", name)
        return
    off = max(abs(link.clock) - link.round_trip / 2, 0.0)
    state: State = "red" if off > _CLOCK_RED else "yellow" if off > _CLOCK_YELLOW else "green"
    ahead = "ahead of" if link.clock > 0 else "behind"
    found = "as here" if state == "green" else f"{off:.1f} s {ahead} this machine's"
    yield Line("network", "clock", state, found, "" if state == "green" else "run chrony or ntpd on every node", name)
    slow = link.round_trip > _SLOW_CALL
    found = f"{link.round_trip * 1e3:.1f} ms there and back"
    fix = "look at the load of the node and the way to it" if slow else ""
    yield Line("network", "calls", "yellow" if slow else "green", found, fix, name)
    if link.bandwidth is not None:
        slow = link.bandwidth < _SLOW_LINE
        found = f"{link.bandwidth / 1e6:,.0f} MB/s for an object of 8 MB"
        fix = "look at the network: checkpoints and data take this way" if slow else ""
        yield Line("network", "bandwidth", "yellow" if slow else "green", found, fix, name)


def storage_lines(report: ClusterReport) -> Iterator[Line]:
    """Whether every node reads what the driver writes, and the other way round; without nodes, whether it can write."""
    names = _names(report.nodes)
    for probe in report.probes:
        what = f"storage: {probe.role}"
        if probe.error:
            found, fix = f"{probe.path}: this machine cannot write: {probe.error}", "mount it, or correct its access"
            yield Line("storage", what, "red", found, fix)
            continue
        good = []
        for node in report.nodes:
            seen = next((one for one in node.seen if one.role == probe.role), None)
            problem = _misses(seen) if seen is not None else ""
            if problem:
                yield Line("storage", what, "red", f"{probe.path}: {problem}", _storage_fix(probe), names[node.id])
            elif seen is not None:
                good.append(names[node.id])
        if not report.nodes:
            yield Line("storage", what, "green", f"{probe.path}: this machine can write")
        elif good:
            found = f"{probe.path}: {len(good)} node(s) and this machine read what the others write"
            yield Line("storage", what, "green", found)


def _misses(seen: Seen) -> str:
    parts = []
    if seen.read:
        parts.append(f"does not see what this machine wrote ({seen.read})")
    if seen.wrote:
        parts.append(f"cannot write ({seen.wrote})")
    elif seen.returned:
        parts.append(f"what it wrote is not seen here ({seen.returned})")
    return "; ".join(parts)


def _storage_fix(probe: Probe) -> str:
    if "://" in probe.path:
        return "give the node the same access: its environment needs the store's credentials and network"
    names = {"cache": "cache_dir", "work_dir": "work_dir"}
    key = names.get(probe.role, probe.role)
    return f"mount one shared file system at this path on every node, or set {key} to a shared folder or s3:// URL"
