"""Training in several workers at once, through Ray Train.

The driver holds the placement group, starts Ray Train's controller and polls it, so that signals and
deadlines end it at any time; with the controller end its workers. Ray Train starts a group of workers
once: `runtime.workers` decides about another try.

On a Ray of this process's own the workers talk on the loopback interface only.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed, UserError, WorkerLeaves
from raysandbox.runtime.actors import PULL_S, START_S, WorkerJob, WorkerLost, failure, runtime_env_of, with_tail
from raysandbox.runtime.claims import Owner
from raysandbox.runtime.placement import placement_group_for, waited_in_vain
from raysandbox.runtime.ray_train import Outcome, Setting, controller_for, outcome_of
from raysandbox.runtime.session import is_local
from raysandbox.runtime.train_session import Training
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress, log_of

__all__ = ["train_together"]

Began = Callable[[int, WorkerAddress], None]

_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def train_together(training: Training, job: WorkerJob, log: Path, began: Began) -> str:
    """Trains in `job.resources.num_workers` workers; returns what the first of them returned.

    Args:
        training: what each of them runs.
        job: whose workers they are.
        log: the job's log; the output of worker 1 goes to `LOG.1.log`, and so on.
        began: told of each worker, by rank, once it has started.

    Raises:
        JobFailed: the resources cannot be had, or a worker failed.
        WorkerLost: a worker died, or they left a node that is about to go.
    """
    environment = runtime_env_of(job.runtime_env)
    if is_local():
        environment["env_vars"] = {**_LOOPBACK, **environment.get("env_vars", {})}
    held = placement_group_for(job.resources, owner=Owner.new(job.id))
    with held as group, tempfile.TemporaryDirectory(prefix="raysandbox-") as storage:
        setting = Setting(job.resources, environment, group, storage, is_local())
        outcome, tail, node = _run(training, setting, log, began)
    if outcome.kind == "no room":
        raise waited_in_vain(job.resources, job.resources.timeout_s)
    if outcome.kind == "done":
        return outcome.value
    message = with_tail(outcome.value, "" if outcome.kind == "refused" else tail, log_of(log, outcome.rank))
    if outcome.kind in ("lost", "left"):
        raise WorkerLost(message, node, left=outcome.kind == "left")
    raise JobFailed(message)


def _run(training: Training, setting: Setting, log: Path, began: Began) -> tuple[Outcome, str, str]:
    """Starts the workers and waits for them, with their output copied on the way.

    Returns:
        how it ended, the last lines of the worker that matters, and the id of its node where that is known.
    """
    import ray
    from ray.exceptions import RayError

    def train() -> str | None:
        return _train_rank(training)

    controller = controller_for(train, setting)
    listener = _Listener(controller, log, began)
    try:
        call = controller.run.remote()
        end = time.monotonic() + START_S
        while not ray.wait([call], timeout=PULL_S)[0]:
            listener.listen()
            if len(listener.followers) < training.world_size and time.monotonic() > end:
                raise JobFailed(f"{training.world_size} workers did not start within {START_S:g} s")
        ray.get(call, timeout=START_S)
        listener.listen(START_S)
        outcome = outcome_of(ray.get(controller.get_result.remote(), timeout=START_S))
        if outcome.kind == "failed" and listener.failures:
            outcome = listener.failures[0]
        follower = listener.followers.get(outcome.rank)
        if follower is not None:
            follower.pull(last=True)
        return outcome, follower.tail if follower is not None else "", follower.node if follower is not None else ""
    except RayError as error:
        raise failure(error, "", log) from error
    finally:
        ray.kill(controller)
        for follower in listener.followers.values():
            follower.pull(last=True)
            follower.close()


class _Listener:
    """What the workers tell through the controller: where they are, and who failed first.

    Attributes:
        followers: copy the workers' output, by rank.
        failures: in the order in which they were told; the first is the cause, others follow from it.
    """

    def __init__(self, controller: Any, log: Path, began: Began) -> None:
        self._controller, self._log, self._began = controller, log, began
        self._question: Any = None
        self.followers: dict[int, LogFollower] = {}
        self.failures: list[Outcome] = []

    def listen(self, patience: float = 0.0) -> None:
        """Takes the answer to the last question, if there is one; the controller has times when it is deaf."""
        import ray

        if self._question is None or patience:
            self._question = self._controller.told.remote()
        if ray.wait([self._question], timeout=patience)[0]:
            told: Any = ray.get(self._question)  # waits: no more, ray.wait has it here
            self._question = None
            self.failures = [said for _, said in told if isinstance(said, Outcome)]
            for rank, said in told:
                if isinstance(said, WorkerAddress) and rank not in self.followers:
                    self.followers[rank] = LogFollower(said, self._log, rank)
                    self._began(rank, said)
        for follower in self.followers.values():
            follower.pull()


def _train_rank(training: Training) -> str | None:
    """What each worker does, in Ray Train's thread."""
    import ray
    from ray.train.v2._internal.execution.context import get_train_context

    context = get_train_context()
    rank, controller = context.get_world_rank(), context.controller_actor
    ray.get(
        controller.tell.remote(rank, WorkerAddress.of_this_process())
    )  # waits: a controller that ends takes this worker with it
    try:
        result = training.run(rank)
    except UserError as error:
        kind = "failed" if isinstance(error, JobFailed) else "refused"
        if isinstance(error, WorkerLeaves):
            kind = "left"
        # waits: a controller that ends takes this worker with it
        ray.get(controller.tell.remote(rank, Outcome(kind, str(error), rank)))
        _be_silent()
        raise
    return result if rank == 0 else None


def _be_silent() -> None:
    """Ray Train would say again, at length, what was said."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
