"""Nodes that are about to go: which, and how long they stay.

A cloud that takes a spot machine back, an autoscaler or a person (`ray drain-node`) tells Ray before;
Ray then places nothing new on the node, and the node ends itself once nothing holds it. Ray ends
nothing at the deadline: whoever takes the machine does.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raysandbox.runtime.session import Cluster, Node

__all__ = ["draining_nodes", "is_going", "own_node_drains", "staying"]

_LOOK_S = 1.0  # how old what is known may be
_NODE_ID = "ray.io/node-id"  # a label that Ray gives every node

_lock = threading.Lock()
_looked = -math.inf
_known: dict[str, float] = {}  # deadlines in seconds since the epoch


def draining_nodes() -> Mapping[str, float]:
    """The seconds that draining nodes have left, by node id; infinite where nothing says how many."""
    global _looked, _known
    with _lock:
        if time.monotonic() > _looked + _LOOK_S:
            _known, _looked = _told(), time.monotonic()
        now = time.time()
        return {node: max(deadline - now, 0.0) for node, deadline in _known.items()}


def _told() -> dict[str, float]:
    """What Ray's control store says: Ray Train asks for the same, and there is no public call."""
    from ray._private import state

    told: dict[str, int] = state.state.get_draining_nodes()
    return {node: deadline / 1000 if deadline else math.inf for node, deadline in told.items()}


def own_node_drains() -> bool:
    """Whether the node of this worker is about to go; asks Ray once a second at most."""
    import ray

    return ray.is_initialized() and ray.get_runtime_context().get_node_id() in draining_nodes()


def is_going(node_id: str, nodes: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a node has gone or is about to: what is lost with it is nobody's fault.

    Args:
        node_id: of the node.
        nodes: what `ray.nodes()` lists, by node id.
    """
    return node_id in nodes and (not nodes[node_id]["Alive"] or node_id in draining_nodes())


def staying(cluster: Cluster) -> Cluster:
    """The cluster without the nodes that are about to go."""
    going = draining_nodes()
    if not going:
        return cluster
    return replace(cluster, nodes=tuple(node for node in cluster.nodes if node_id_of(node) not in going))


def node_id_of(node: Node) -> str:
    """Ray's id of a node."""
    return node.labels.get(_NODE_ID, "")
