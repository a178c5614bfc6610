"""Training in a Ray actor: its resources, its log, its metrics, and what happens when it dies."""

from __future__ import annotations

import importlib.util
import logging
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.redact import redact_text
from raysandbox.core.runner import Report
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.placement import Resources, placement_group_for
from raysandbox.runtime.session import is_local
from raysandbox.runtime.watcher_actor import Reporter
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress, redirect_output

__all__ = ["run_in_worker"]

logger = logging.getLogger(__name__)
_LOST_TRIES = 2  # a worker that dies with its machine is no fault of the job: not counted in `retries`
_PULL_S = 0.5
_START_S = 600.0  # an environment with pip packages is built meanwhile


class WorkerJob(Protocol):
    """What is to run."""

    @property
    def id(self) -> str:
        """`pipeline.meta_name#index`, for messages."""
        ...

    @property
    def resources(self) -> Resources:
        """What its workers need."""
        ...

    @property
    def runtime_env(self) -> Mapping[str, Any]:
        """Ray runtime environment of its workers."""
        ...


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
    """

    report: Report
    device: str
    log_dir: Path


class WorkerLost(Exception):
    """The worker's process or node died."""


def run_in_worker(trainer: ModelTrainer, job: WorkerJob, context: WorkerContext) -> str:
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
    while len(lost) <= _LOST_TRIES:
        try:
            with placement_group_for(job.resources) as group:
                return _run_once(trainer, job, context, group)
        except WorkerLost as error:
            logger.warning("job %s lost its worker: %s", job.id, str(error).splitlines()[0])
            lost.append(error)
    raise JobFailed(f"the worker died {len(lost)} times: {lost[-1]}") from lost[-1]


def _run_once(trainer: ModelTrainer, job: WorkerJob, context: WorkerContext, group: Any) -> str:
    import ray
    from ray.exceptions import RayError

    worker = _start(job, group)
    follower: LogFollower | None = None
    try:
        address: Any = ray.get(worker.start.remote(), timeout=_START_S)
        follower = LogFollower(address, context.log)
        result = worker.train.remote(trainer, context.report, job.resources.num_gpus > 0, context.log.with_suffix(""))
        while not ray.wait([result], timeout=_PULL_S)[0]:
            follower.pull()
        return ray.get(result)
    except RayError as error:
        if follower is not None:
            follower.pull(last=True)
        raise _failure(error, follower.tail if follower else "", context.log) from error
    finally:
        ray.kill(worker)
        if follower is not None:
            follower.pull(last=True)
            follower.close()


def _start(job: WorkerJob, group: Any) -> Any:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    options: dict[str, Any] = {
        "num_cpus": job.resources.num_cpus,
        "num_gpus": job.resources.num_gpus,
        # Ray jobs that a training starts itself do not have to fit into its bundle.
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=False),
        "runtime_env": _runtime_env(job.runtime_env),
    }
    return ray.remote(_Worker).options(**options).remote()


def _runtime_env(given: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime environment with its interpreter's path made absolute: workers start elsewhere.

    Raises:
        JobFailed: the interpreter is not there; Ray would wait for its workers for ever.
    """
    environment = dict(given)
    interpreter = environment.get("py_executable", "")
    if os.sep in interpreter and " " not in interpreter:
        path = Path(interpreter).expanduser().absolute()
        if is_local() and not path.exists():
            raise JobFailed(f"runtime_env.py_executable: {interpreter} does not exist")
        environment["py_executable"] = str(path)
    return environment


def _failure(error: Exception, tail: str, log: Path) -> Exception:
    """What a Ray error means here: the job's own failure, or a lost worker."""
    from ray.exceptions import GetTimeoutError, RayTaskError, RuntimeEnvSetupError

    if isinstance(error, RayTaskError):
        cause = error.cause
        reason = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
    elif isinstance(error, RuntimeEnvSetupError):
        reason = f"the job's runtime_env cannot be set up: {error}"
    elif isinstance(error, GetTimeoutError):
        reason = f"the worker did not start within {_START_S:g} s"
    else:
        reason = str(error).splitlines()[-1].split(" Some common causes")[0]  # Ray's last line says why
        return WorkerLost(redact_text(_with_tail(reason, tail, log)))
    return JobFailed(redact_text(_with_tail(reason, tail, log)))


def _with_tail(reason: str, tail: str, log: Path) -> str:
    return f"{reason}\nlast lines of {log}:\n{tail}" if tail else reason


class _Worker:
    """The actor."""

    def start(self) -> WorkerAddress:
        """Redirects the output; returns where the worker is."""
        import ray

        return WorkerAddress(ray.get_runtime_context().get_node_id(), os.getpid(), redirect_output())

    def train(self, trainer: ModelTrainer, report: Reporter, has_gpu: bool, log_dir: Path) -> str:
        """Trains; the metrics are with the watcher when it returns."""
        log_dir.mkdir(parents=True, exist_ok=True)
        try:
            return trainer.train(Session(report, _device(has_gpu), log_dir))
        except SystemExit as error:  # Ray would take it for the wish to end the actor
            raise JobFailed(f"the training ended its process with status {error.code}") from error
        except Exception:
            traceback.print_exc()  # into the job's log; the driver gets the message
            raise
        finally:
            report.client.flush()


def _device(has_gpu: bool) -> str:
    if not has_gpu or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
