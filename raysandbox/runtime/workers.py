"""Training in a Ray actor: its resources, its log, its metrics, and what happens when it dies."""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysandbox.core.errors import JobFailed
from raysandbox.core.runner import Report
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.actors import LOST_TRIES, PULL_S, START_S, WorkerJob, WorkerLost, failure, start_actor
from raysandbox.runtime.placement import placement_group_for
from raysandbox.runtime.unit_actor import device_for
from raysandbox.runtime.watcher_actor import Reporter
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress, redirect_output

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


@dataclass(frozen=True)
class Session:
    """What the training gets (`raysandbox.core.runner.TrainSession`).

    Attributes:
        report: sends metrics to the watcher.
        device: "cuda" when the bundle holds a GPU that torch can use, else "cpu".
        log_dir: for log files of the training's own.
        prepared: what the trainer prepared.
        rank: number of this worker, from 0.
        world_size: number of workers.
    """

    report: Report
    device: str
    log_dir: Path
    prepared: Any = None
    rank: int = 0
    world_size: int = 1


def run_in_worker(trainer: ModelTrainer, job: WorkerJob, context: WorkerContext, prepared: Any = None) -> str:
    """Trains in an actor that holds the job's resources; returns the checkpoint or model directory.

    The actor's output goes to `context.log`. A lost worker is replaced twice. Whatever ends this
    call, a signal or a deadline too, ends the actor with all its child processes.

    Raises:
        JobFailed: the resources cannot be had, or the training failed; with the log's last lines.
    """
    if job.resources.num_workers > 1:
        raise JobFailed(
            f"resources.num_workers is {job.resources.num_workers}; the trainer '{trainer.type_name}' runs in one "
            f"worker (set num_workers: 1)"
        )
    lost: list[WorkerLost] = []
    while len(lost) <= LOST_TRIES:
        try:
            with placement_group_for(job.resources) as group:
                return _run_once(trainer, job, context, prepared, group)
        except WorkerLost as error:
            logger.warning("job %s lost its worker: %s", job.id, str(error).splitlines()[0])
            lost.append(error)
    raise JobFailed(f"the worker died {len(lost)} times: {lost[-1]}") from lost[-1]


def _run_once(trainer: ModelTrainer, job: WorkerJob, context: WorkerContext, prepared: Any, group: Any) -> str:
    import ray
    from ray.exceptions import RayError

    worker = start_actor(_Worker, job, group)
    follower: LogFollower | None = None
    try:
        address: Any = ray.get(worker.start.remote(), timeout=START_S)
        follower = LogFollower(address, context.log)
        has_gpu, log_dir = job.resources.num_gpus > 0, context.log.with_suffix("")
        result = worker.train.remote(trainer, context.report, has_gpu, log_dir, prepared)
        while not ray.wait([result], timeout=PULL_S)[0]:
            follower.pull()
        return ray.get(result)
    except RayError as error:
        if follower is not None:
            follower.pull(last=True)
        raise failure(error, follower.tail if follower else "", context.log) from error
    finally:
        ray.kill(worker)
        if follower is not None:
            follower.pull(last=True)
            follower.close()


class _Worker:
    """The actor."""

    def start(self) -> WorkerAddress:
        """Redirects the output; returns where the worker is."""
        import ray

        return WorkerAddress(ray.get_runtime_context().get_node_id(), os.getpid(), redirect_output())

    def train(self, trainer: ModelTrainer, report: Reporter, has_gpu: bool, log_dir: Path, prepared: Any) -> str:
        """Trains; the metrics are with the watcher when it returns."""
        log_dir.mkdir(parents=True, exist_ok=True)
        try:
            return trainer.train(Session(report, device_for(has_gpu), log_dir, prepared))
        except SystemExit as error:  # Ray would take it for the wish to end the actor
            raise JobFailed(f"the training ended its process with status {error.code}") from error
        except Exception:
            traceback.print_exc()  # into the job's log; the driver gets the message
            raise
        finally:
            report.client.flush()
