"""Training in several workers at once, through Ray Train.

The driver starts a coordinator, an actor without resources, which runs Ray Train's `fit` in one of
its threads and learns in others where the workers are and which of them failed first. The driver
only polls, so that signals and deadlines end it at any time; with the coordinator end Ray Train's
controller and the workers. Ray Train starts a group once: `runtime.workers` decides about another try.

On a Ray of this process's own, workers find each other through a file and talk on the loopback
interface: torch's own rendezvous listens on every interface.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.runtime.actors import PULL_S, START_S, WorkerJob, WorkerLost, failure, runtime_env_of, with_tail
from raysandbox.runtime.placement import placement_group_for, waited_in_vain
from raysandbox.runtime.ray_train import Outcome, Setting, fit
from raysandbox.runtime.session import is_local
from raysandbox.runtime.train_session import Training
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress, log_of, redirect_output

__all__ = ["train_together"]

_CALL_S = 30.0  # patience with the coordinator, which starts and imports Ray Train
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def train_together(training: Training, job: WorkerJob, log: Path) -> str:
    """Trains in `job.resources.num_workers` workers; returns what the first of them returned.

    Args:
        training: what each of them runs.
        job: whose workers they are.
        log: the job's log; the output of worker 2 goes to `LOG.2.log`, and so on.

    Raises:
        JobFailed: the resources cannot be had, or a worker failed.
        WorkerLost: a worker died.
    """
    with placement_group_for(job.resources):
        pass  # said in our words what is missing, if anything is; Ray Train asks for the same again
    with tempfile.TemporaryDirectory(prefix="raysandbox-train-") as storage:
        environment = runtime_env_of(job.runtime_env)
        if is_local():
            environment["env_vars"] = {**_LOOPBACK, **environment.get("env_vars", {})}
        setting = Setting(job.resources, environment, storage, is_local())
        outcome, tail = _fitted(training, setting, log)
    if outcome.kind == "no room":
        raise waited_in_vain(job.resources, job.resources.timeout_s)
    if outcome.kind == "done":
        return outcome.value
    message = with_tail(outcome.value, "" if outcome.kind == "refused" else tail, log_of(log, outcome.rank))
    raise WorkerLost(message) if outcome.kind == "lost" else JobFailed(message)


def _fitted(training: Training, setting: Setting, log: Path) -> tuple[Outcome, str]:
    """Runs the coordinator to its end, with the workers' output copied on the way.

    Returns:
        how it ended, and the last lines of the worker that matters.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": training.world_size + 3, "scheduling_strategy": here}
    coordinator: Any = ray.remote(_Coordinator).options(**options).remote()
    followers: dict[int, LogFollower] = {}
    end = time.monotonic() + START_S + setting.resources.timeout_s
    try:
        result: Any = coordinator.fit.remote(training, setting)
        while not ray.wait([result], timeout=PULL_S)[0]:
            _follow(coordinator, followers, log)
            if len(followers) < training.world_size and time.monotonic() > end:
                raise JobFailed(f"{training.world_size} workers did not start within {START_S:g} s")
        _follow(coordinator, followers, log)
        outcome: Any = ray.get(result)
        for follower in followers.values():
            follower.pull(last=True)
        return outcome, followers[outcome.rank].tail if outcome.rank in followers else ""
    except RayError as error:
        raise failure(error, "", log) from error
    finally:
        ray.kill(coordinator)
        for follower in followers.values():
            follower.pull(last=True)
            follower.close()


def _follow(coordinator: Any, followers: dict[int, LogFollower], log: Path) -> None:
    import ray
    from ray.exceptions import GetTimeoutError

    try:
        addresses: Any = ray.get(coordinator.addresses.remote(), timeout=_CALL_S)
    except GetTimeoutError:
        return  # asked again in a moment
    for rank, address in addresses.items():
        if rank not in followers:
            followers[rank] = LogFollower(address, log_of(log, rank))
    for follower in followers.values():
        follower.pull()


class _Coordinator:
    """The actor between the driver and Ray Train; its methods run in threads of their own."""

    def __init__(self) -> None:
        self._addresses: dict[int, WorkerAddress] = {}
        self._failures: list[Outcome] = []
        self._lock = threading.Lock()

    def came_up(self, rank: int, address: WorkerAddress) -> None:
        """A worker has started."""
        with self._lock:
            self._addresses[rank] = address

    def failed(self, outcome: Outcome) -> None:
        """A worker failed; the first to say so is the cause, the others follow."""
        with self._lock:
            self._failures.append(outcome)

    def addresses(self) -> dict[int, WorkerAddress]:
        """Where the workers are that have started."""
        with self._lock:
            return dict(self._addresses)

    def fit(self, training: Training, setting: Setting) -> Outcome:
        """Starts the workers and waits for them."""
        import ray

        me = ray.get_runtime_context().current_actor

        def train() -> str | None:
            return _train_rank(training, me)

        outcome = fit(train, setting)
        return self._failures[0] if outcome.kind == "failed" and self._failures else outcome


def _train_rank(training: Training, coordinator: Any) -> str | None:
    """What each worker does, in Ray Train's thread."""
    import ray
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    address = WorkerAddress(ray.get_runtime_context().get_node_id(), os.getpid(), redirect_output())
    ray.get(coordinator.came_up.remote(rank, address))
    try:
        result = training.run(rank)
    except UserError as error:
        kind = "failed" if isinstance(error, JobFailed) else "refused"
        ray.get(coordinator.failed.remote(Outcome(kind, str(error), rank)))
        raise
    return result if rank == 0 else None
