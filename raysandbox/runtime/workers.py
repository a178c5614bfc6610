"""Training in Ray actors: their resources, their logs, their metrics, and what happens when one dies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed
from raysandbox.core.runner import Emit
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.actors import LOST_TRIES, PULL_S, START_S, WorkerJob, WorkerLost, failure, start_actor
from raysandbox.runtime.claims import Owner
from raysandbox.runtime.distributed import train_together
from raysandbox.runtime.draining import is_going
from raysandbox.runtime.placement import placement_group_for
from raysandbox.runtime.polling import result_of
from raysandbox.runtime.slots import nodes_by_id
from raysandbox.runtime.train_session import Training
from raysandbox.runtime.visibility import require_seen
from raysandbox.runtime.watcher_actor import Reporter
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress, where_is

__all__ = ["run_in_worker"]

logger = logging.getLogger(__name__)


class WorkerContext(Protocol):
    """Where its log and metrics go."""

    @property
    def log(self) -> Path:
        """The job's log file."""
        ...

    @property
    def report(self) -> Reporter:
        """Sends metrics to the watcher, from any node."""
        ...

    @property
    def emit(self) -> Emit:
        """Appends an event to the run's journal."""
        ...


def run_in_worker(trainer: ModelTrainer, job: WorkerJob, context: WorkerContext, prepared: Any = None) -> str:
    """Trains in actors that hold the job's resources; returns the checkpoint or model directory.

    The output of worker 0 goes to `context.log`, that of worker 1 to `LOG.1.log`, and so on. A lost
    worker is replaced twice, and as often as one is lost with its node or leaves a node that is about
    to go; where several train together, all of them start again. Whatever ends this call, a signal or a
    deadline too, ends the actors with all their child processes.

    Raises:
        JobFailed: the resources cannot be had, or the training failed; with the log's last lines.
    """
    number = job.resources.num_workers
    if number > 1 and not trainer.distributed:
        raise JobFailed(
            f"resources.num_workers is {number}; the trainer '{trainer.type_name}' runs in one worker "
            f"(set num_workers: 1)"
        )
    _require_seen(trainer, job)
    log_dir = context.log.with_suffix("")
    training = Training(trainer, context.report, job.resources.num_gpus > 0, log_dir, prepared, number)
    lost: list[WorkerLost] = []

    def began(number: int, address: WorkerAddress) -> None:
        context.emit("worker_started", job=job.id, worker=number, **where_is(address))

    while _own_losses(lost) <= LOST_TRIES:
        try:
            if number > 1:
                return train_together(training, job, context.log, began)
            return _train_alone(training, job, context.log, partial(began, 0))
        except WorkerLost as error:
            reason = str(error).splitlines()[0]
            text = "job %s moves: %s" if error.left else "job %s lost its worker: %s"
            logger.warning(text, job.id, reason)
            context.emit("worker_lost", job=job.id, left=error.left, reason=reason)
            lost += [] if error.left else [error]
    raise JobFailed(f"the worker died {len(lost)} times: {lost[-1]}") from lost[-1]


def _require_seen(trainer: ModelTrainer, job: WorkerJob) -> None:
    """Refuses a training whose files a node does not see that its worker may get."""
    refs = list(path_refs(type(trainer), trainer.model_dump(by_alias=True)))
    reads = [ref.path for ref in refs if ref.role is not PathRole.OUTPUT]
    require_seen(job.id, reads, [ref.path for ref in refs if ref.role is PathRole.OUTPUT], job.resources)


def _own_losses(lost: list[WorkerLost]) -> int:
    """How many workers were lost on nodes that stay: a lost node is nobody's fault."""
    nodes = nodes_by_id() if lost else {}
    return sum(not is_going(error.node, nodes) for error in lost)


def _train_alone(training: Training, job: WorkerJob, log: Path, began: Callable[[WorkerAddress], None]) -> str:
    import ray
    from ray.exceptions import RayError

    with placement_group_for(job.resources, owner=Owner.new(job.id)) as group:
        worker = start_actor(_Worker, job, group)
        follower: LogFollower | None = None
        try:
            address: Any = result_of(worker.start.remote(), START_S)
            follower = LogFollower(address, log)
            began(address)
            result = worker.train.remote(training)
            # waits: as long as the training takes; timeout_s and signals end it
            while not ray.wait([result], timeout=PULL_S)[0]:
                follower.pull()
            return ray.get(result, timeout=START_S)
        except RayError as error:
            if follower is not None:
                follower.pull(last=True)
            reason = failure(error, follower.tail if follower else "", log)
            if isinstance(reason, WorkerLost) and follower is not None:
                reason.node = follower.node
            raise reason from error
        finally:
            ray.kill(worker)
            if follower is not None:
                follower.pull(last=True)
                follower.close()


class _Worker:
    """The actor."""

    def start(self) -> WorkerAddress:
        """Redirects the output; returns where the worker is."""
        return WorkerAddress.of_this_process()

    def train(self, training: Training) -> str:
        """Trains."""
        return training.run()
