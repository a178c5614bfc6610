"""Whether the nodes that may get a job's work see what it reads and writes: asked before it starts.

Each node is visited by a task without CPUs. It looks whether the files are there and as long as here,
reads a probe file that the driver wrote where outputs go, and writes one that the driver reads. What a
node has answered is not asked again. A node that does not answer is said and left to Ray: it may be
about to go.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raysandbox.core.errors import UserError
from raysandbox.core.names import is_remote
from raysandbox.runtime.placement import Resources, bundle, how_many, labels_fit
from raysandbox.runtime.session import Node, is_local
from raysandbox.runtime.shared_storage import Probe, Seen, answer, place, reads_of, remove
from raysandbox.runtime.tasks import call_on

__all__ = ["require_seen"]

_NODE_LIMIT_S = 30.0
_SETTLE_S, _AGAIN_S = 3.0, 0.25  # a shared file system may show what was there before for a while
_POLL_S = 0.5  # waiting inside Ray cannot be interrupted in every thread
_FIRST_FILES = 3  # of a folder: a cheap look
_MOST_SHOWN = 5
_FIXES = {
    "reads": "put it into the submitted folder, into a folder that all nodes share, or on storage such as s3://; "
    "or keep the job on nodes that see it, by resources.label_selector",
    "writes": "set RAYSANDBOX_ROOT to a folder that all nodes share (or write the output there), or keep the job on "
    "nodes that see it, by resources.label_selector",
}

logger = logging.getLogger(__name__)
_guard = threading.Lock()
_known: set[tuple[str, str]] = set()  # (node id, path) that a node has been found to see


@dataclass(frozen=True)
class _Expected:
    """A path as the driver sees it.

    Attributes:
        path: of a file or folder.
        sizes: bytes by path, of the file or the folder's first files.
    """

    path: str
    sizes: Mapping[str, int] = field(default_factory=dict)


def require_seen(
    job: str, reads: Iterable[str | Path], writes: Iterable[str | Path] = (), resources: Resources | None = None
) -> None:
    """Refuses work that would fail on a node, since that does not see a path.

    Args:
        job: what is to run, for messages.
        reads: files and folders that it needs; URLs, names of hubs and what is not here are passed over.
        writes: folders in which its workers leave files for the driver.
        resources: of one worker, to know which nodes may get one; any with a CPU by default.

    Raises:
        UserError: a node does not see a path, or what it writes is not seen here; names node, path and fix.
    """
    if is_local() or not _has_session():
        return
    nodes = _others(resources or Resources.model_validate({}))
    wanted = [expected for path in reads if (expected := _expected(str(path))) is not None]
    folders = list(dict.fromkeys(os.path.abspath(os.path.expanduser(str(path))) for path in writes))
    left = {
        node: (
            [each for each in wanted if (node, each.path) not in _known],
            [folder for folder in folders if (node, _written(folder)) not in _known],
        )
        for node in nodes
    }
    left = {node: (looks, asks) for node, (looks, asks) in left.items() if looks or asks}
    if not left:
        return
    asked = {folder for _, asks in left.values() for folder in asks}
    probes = {folder: place(folder, folder) for folder in asked}
    try:
        problems = _visit(job, nodes, left, probes)
    finally:
        for probe in probes.values():
            remove(probe)
    if problems:
        shown = problems[:_MOST_SHOWN] + ([f"… and {len(problems) - _MOST_SHOWN} more"] * (len(problems) > _MOST_SHOWN))
        raise UserError("\n".join(shown))


def _visit(
    job: str,
    nodes: Mapping[str, Node],
    left: Mapping[str, tuple[Sequence[_Expected], Sequence[str]]],
    probes: Mapping[str, Probe],
) -> list[str]:
    """Asks every node; returns what is wrong, and notes what is right."""
    import ray

    visits = {}
    for node, (looks, asks) in left.items():
        written = [probes[folder] for folder in asks if not probes[folder].error]
        visits[call_on(node, _look_around, list(looks), written, node)] = node
    answered, end = [], time.monotonic() + _NODE_LIMIT_S
    waiting = list(visits)
    while waiting and time.monotonic() < end:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_S)
        answered += ready
    problems: list[str] = []
    for visit in answered:
        node = visits[visit]
        try:
            missing, seen = ray.get(visit, timeout=_POLL_S)
        except Exception as error:  # noqa: BLE001 - the node went, or cannot run the job's environment: Ray says so again
            logger.warning("job %s: node %s cannot be asked what it sees: %s", job, nodes[node].name, error)
            continue
        problems += _told(nodes[node], node, left[node], probes, missing, seen)
    for visit in waiting:
        node = visits[visit]
        ray.cancel(visit, force=True)
        for folder in left[node][1]:
            remove(probes[folder], node)
        name = nodes[node].name
        logger.warning(
            "job %s: node %s did not say within %g s whether it sees the job's files", job, name, _NODE_LIMIT_S
        )
    return problems


def _told(
    node: Node,
    node_id: str,
    asked: tuple[Sequence[_Expected], Sequence[str]],
    probes: Mapping[str, Probe],
    missing: Mapping[str, str],
    seen: Sequence[Seen],
) -> list[str]:
    """What a node's answer means."""
    looks, folders = asked
    problems = [f"node {node.name}: {path}: {reason} ({_FIXES['reads']})" for path, reason in missing.items()]
    good = {(node_id, each.path) for each in looks if each.path not in missing}
    answers = {one.role: one for one in seen}
    for folder in folders:
        probe = probes[folder]
        if probe.error:
            problems.append(f"{folder} cannot be written here: {probe.error} (choose another folder)")
            continue
        one = answers[folder]
        reason = (one.read and f"it is not the same folder there: {one.read}") or (
            one.wrote and f"it cannot be written there: {one.wrote}"
        )
        if not one.wrote:
            returned = reads_of(probe, node_id)
            remove(probe, node_id)
            reason = reason or (returned and f"what is written there is not seen here: {returned}")
        if reason:
            problems.append(f"node {node.name}: {folder}: {reason} ({_FIXES['writes']})")
        else:
            good.add((node_id, _written(folder)))
    with _guard:
        _known.update(good)
    return problems


def _look_around(expected: Sequence[_Expected], probes: Sequence[Probe], who: str) -> tuple[dict[str, str], list[Seen]]:
    """On a node: what of the files is missing, and how the probes went; the node's own are removed where unseen."""
    end = time.monotonic() + _SETTLE_S
    while missing := {each.path: reason for each in expected if (reason := _difference(each))}:
        if time.monotonic() > end:
            break
        time.sleep(_AGAIN_S)
    seen = []
    for probe in probes:
        one = answer(probe, who)
        # Another folder of that name, where the driver cannot tidy up; or it waits no more and has tidied up already.
        if not one.wrote and (one.read or reads_of(probe, "")):
            remove(probe, who)
        seen.append(one)
    return missing, seen


def _difference(expected: _Expected) -> str:
    if not os.path.exists(expected.path):
        return "is not there"
    for path, size in expected.sizes.items():
        try:
            found = _size(path)
        except OSError:
            return f"{os.path.basename(path)} is not in there"
        if found != size:
            return f"{os.path.basename(path)} is another file there ({found} bytes; here {size})"
    return ""


def _size(path: str) -> int:
    """Bytes of a file as its storage has it: opening asks the server, where a look may be answered from memory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return os.stat(path).st_size
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _expected(path: str) -> _Expected | None:
    """What a node should see; None for what is not a path of this machine."""
    if is_remote(path):
        return None
    path = os.path.abspath(os.path.expanduser(path.removeprefix("file://")))
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                files = itertools.islice((entry for entry in entries if entry.is_file()), _FIRST_FILES)
                return _Expected(path, {entry.path: entry.stat().st_size for entry in files})
        return _Expected(path, {path: os.stat(path).st_size})
    except OSError:
        return None  # a name of a hub; or it is missing here too, which is said elsewhere


def _others(resources: Resources) -> dict[str, Node]:
    """The nodes besides the driver's that may get a worker, by their ids."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    found: dict[str, Node] = {}
    for each in ray.nodes():
        node = Node(each["NodeManagerAddress"], dict(each["Resources"]), dict(each["Labels"]))
        fits = labels_fit(node, resources.label_selector) and how_many(node, bundle(resources)) > 0
        if each["Alive"] and each["NodeID"] != own and fits:
            found[each["NodeID"]] = node
    return found


def _has_session() -> bool:
    import ray

    return ray.is_initialized()


def _written(folder: str) -> str:
    """The name under which it is remembered that a folder was written."""
    return f"{folder}/"
