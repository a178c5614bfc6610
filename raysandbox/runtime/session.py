"""The Ray session: the cluster that the user names, or a local one on loopback."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import platform
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import raysandbox
from raysandbox.core.errors import UserError
from raysandbox.runtime.local_ray import forget_token, start_local
from raysandbox.runtime.main_thread import in_main_thread

__all__ = [
    "NAMESPACE",
    "Cluster",
    "Node",
    "cluster_summary",
    "ensure_ray",
    "in_ray_job",
    "is_connected",
    "is_local",
    "join_as_worker",
    "shutdown_ray",
    "this_machine",
]

NAMESPACE = "raysandbox"
_LOOPBACK = "127.0.0.1"
_SETTLE_S = 60.0  # for the raylets of this machine to unpack a job's working directory
_CONNECT_S = 10.0

_started: str | None = None  # "local" or "cluster" once this process has connected


@dataclass(frozen=True)
class Node:
    """One machine of the cluster.

    Attributes:
        name: its address.
        resources: totals by Ray's resource names.
        labels: its labels.
    """

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def cpus(self) -> float:
        """Number of logical CPUs."""
        return self.resources.get("CPU", 0.0)

    @property
    def gpus(self) -> float:
        """Number of logical GPUs."""
        return self.resources.get("GPU", 0.0)


@dataclass(frozen=True)
class Cluster:
    """What there is to run on.

    Attributes:
        nodes: the machines that are alive.
        free: resources that nothing holds now, by Ray's names.
        local: whether it was started by this process and cannot grow.
        versions: of ray and python.
    """

    nodes: tuple[Node, ...]
    free: Mapping[str, float]
    local: bool = True
    versions: Mapping[str, str] = field(default_factory=dict)

    def total(self, resource: str) -> float:
        """Sum over the nodes."""
        return sum(node.resources.get(resource, 0.0) for node in self.nodes)


def in_ray_job() -> bool:
    """Whether this process is the driver of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def is_local() -> bool:
    """Whether this process runs on a Ray of its own."""
    return _started == "local"


def ensure_ray(*, num_cpus: int | None = None, num_gpus: int | None = None) -> None:
    """Connects to the cluster in RAY_ADDRESS, or starts a local Ray on loopback; once per process.

    A cluster is joined only when RAY_ADDRESS names it (as `ray job submit` does), never because one
    happens to run on this machine. A Ray that the program itself has started is used as it is.

    Args:
        num_cpus: logical CPUs of a local Ray; the machine's by default.
        num_gpus: logical GPUs of a local Ray; the machine's by default.

    Raises:
        UserError: the cluster cannot be reached or refuses the token, or a local Ray does not start.
    """
    if not is_connected():
        in_main_thread(partial(_connect_or_start, num_cpus, num_gpus))  # Ray ends with the thread that started it


def is_connected() -> bool:
    """Whether this process has a Ray, of its own or of somebody's; imports none to find out."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(getattr(ray, "is_initialized", bool)())


def _connect_or_start(num_cpus: int | None, num_gpus: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", "3")  # Ray's default is to begin a task again without end
    import ray

    if ray.is_initialized():
        return
    with _own_handlers():
        _start(num_cpus, num_gpus)


def _start(num_cpus: int | None, num_gpus: int | None) -> None:
    global _started
    import ray

    common = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        folder = Path.cwd()
        _connect(address, common)
        _started = "cluster"
        if in_ray_job():
            _settle_working_dir(folder)
    else:
        start_local(partial(ray.init, num_cpus=num_cpus, num_gpus=num_gpus, _node_ip_address=_LOOPBACK, **common))
        _started = "local"
        atexit.register(shutdown_ray)  # before Ray's own, which waits half a second first


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Keeps a SIGTERM handler of ours, which `ray.init` would replace: Ray's ends the process with status 15.

    A recipe may start Ray in the middle of a run that is interruptible already.
    """
    from ray._private import utils

    set_handler = utils.set_sigterm_handler
    if callable(signal.getsignal(signal.SIGTERM)):
        utils.set_sigterm_handler = _nothing
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler


def join_as_worker(*, local: bool) -> None:
    """Says in an actor that runs an experiment what Ray its driver has."""
    global _started
    _started = "local" if local else "cluster"


def shutdown_ray() -> None:
    """Disconnects, and ends a local Ray, if `ensure_ray` made the connection."""
    global _started
    if _started is not None:
        import ray

        ray.shutdown()
        if _started == "local":
            forget_token()  # which is no cluster's
        _started = None


def cluster_summary() -> Cluster:
    """The cluster that this process is connected to."""
    import ray

    nodes = tuple(
        Node(node["NodeManagerAddress"], dict(node["Resources"]), dict(node["Labels"]))
        for node in ray.nodes()
        if node["Alive"]
    )
    versions = {"ray": ray.__version__, "python": platform.python_version()}
    return Cluster(nodes, dict(ray.available_resources()), is_local(), versions)


def this_machine() -> Cluster:
    """What a local Ray would have, without starting one."""
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return Cluster((Node("this machine", {"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}),), {})


def _connect(address: str, common: Mapping[str, Any]) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    try:
        _check_port(address)
        ray.init(address=address, runtime_env=_code_for_workers(), **common)
    except AuthenticationError as error:
        raise UserError(
            f"the Ray cluster at {address} refuses this token: export RAY_AUTH_MODE=token and "
            f"RAY_AUTH_TOKEN_PATH=FILE with the cluster's token (`ray get-auth-token` on its head node)"
        ) from error
    except Exception as error:  # Ray's own are of all kinds, bare ones too
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot connect to the Ray cluster at {address} (RAY_ADDRESS): {reason} "
            f"(unset RAY_ADDRESS for a local Ray)"
        ) from error


def _settle_working_dir(folder: Path) -> None:
    """Enters the job's working directory again once no other raylet can replace it.

    Raylets on one machine share the folder of unpacked working directories: when a job begins, each
    unpacks it anew, and the driver is left in a directory that is no more. A task on every such
    raylet comes after its unpacking.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    host = next(node["NodeManagerHostname"] for node in ray.nodes() if node["NodeID"] == here)
    neighbours = [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and node["NodeManagerHostname"] == host and node["NodeID"] != here
    ]
    visits = [
        ray.remote(num_cpus=0)(_nothing)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True))
        .remote()
        for node in neighbours
    ]
    if visits:
        ray.wait(visits, num_returns=len(visits), timeout=_SETTLE_S)  # waits: who is late unpacks nothing more
    os.chdir(folder)


def _nothing(*_: object, **__: object) -> None:
    """As a task it only shows that its node is ready."""


def _check_port(address: str) -> None:
    """Raises OSError when nobody listens at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        # waits: whoever calls this says what its OSError means
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _code_for_workers() -> dict[str, Any]:
    """Sends this package to the workers, unless the job's working directory already holds it.

    The workers then run the driver's code, whatever their image has installed.
    """
    package = Path(raysandbox.__file__).parent
    if in_ray_job() and package.is_relative_to(Path.cwd()):
        return {}
    return {"py_modules": [str(package)]}
