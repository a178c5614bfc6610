"""Actors that hold a job's bundles: how they start, what their end means, on which device they work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from raysandbox.core.errors import JobFailed, UserError, WorkerLeaves
from raysandbox.core.redact import redact_text
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.session import is_local

__all__ = [
    "LOST_TRIES",
    "PULL_S",
    "START_S",
    "WorkerJob",
    "WorkerLost",
    "failure",
    "runtime_env_of",
    "start_actor",
    "with_tail",
]

LOST_TRIES = 2  # a worker that dies with its machine is no fault of the job: not counted in `retries`
PULL_S = 0.5
START_S = 600.0  # an environment with pip packages is built meanwhile


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


class WorkerLost(Exception):
    """The worker's process or node died, or its node is about to go and the work has left it.

    Attributes:
        node: id of the node, "" where it is not known.
        left: whether the work has left by itself, and goes on elsewhere.
    """

    def __init__(self, message: str, node: str = "", *, left: bool = False) -> None:
        self.node, self.left = node, left
        super().__init__(message)


def start_actor(cls: type, job: WorkerJob, group: Any, bundle: int = 0, python: str | None = None) -> Any:
    """An actor of a class in one bundle of a job's placement group.

    Args:
        cls: the class.
        job: whose worker it is.
        group: the placement group.
        bundle: number of its bundle.
        python: the interpreter that it runs on, in place of the job's own.

    Raises:
        JobFailed: the interpreter is not there; Ray would wait for its workers for ever.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    given = {**job.runtime_env, "py_executable": python} if python else job.runtime_env
    options: dict[str, Any] = {
        "num_cpus": job.resources.num_cpus,
        "num_gpus": job.resources.num_gpus,
        # Ray jobs that a worker starts itself do not have to fit into its bundle.
        "scheduling_strategy": PlacementGroupSchedulingStrategy(
            group, bundle, placement_group_capture_child_tasks=False
        ),
        "runtime_env": runtime_env_of(given),
    }
    return ray.remote(cls).options(**options).remote()


def runtime_env_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime environment with its interpreter's path made absolute: workers start elsewhere."""
    environment = dict(given)
    interpreter = environment.get("py_executable", "")
    if os.sep in interpreter and " " not in interpreter:
        path = Path(interpreter).expanduser().absolute()
        if is_local() and not path.exists():
            raise JobFailed(f"runtime_env.py_executable: {interpreter} does not exist")
        environment["py_executable"] = str(path)
    return environment


def failure(error: Exception, tail: str, log: Path) -> Exception:
    """What a Ray error means here: the job's own failure (JobFailed), or a lost worker (WorkerLost).

    Args:
        error: what `ray.get` raised.
        tail: the last lines of the worker's output.
        log: where all of them are.
    """
    from ray.exceptions import GetTimeoutError, RaySystemError, RayTaskError, RuntimeEnvSetupError

    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, WorkerLeaves):
            return WorkerLost(str(cause), left=True)
        if isinstance(cause, UserError) and not isinstance(cause, JobFailed):
            tail = ""  # it says itself what is to be mended
        reason = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
    elif isinstance(error, RuntimeEnvSetupError):
        reason = f"the job's runtime_env cannot be set up: {error}"
    elif isinstance(error, RaySystemError):
        reason = f"what the worker sent cannot be read here: {str(error).strip().splitlines()[-1]}"
    elif isinstance(error, GetTimeoutError):
        reason = f"the worker did not start, or its result did not arrive, within {START_S:g} s"
    else:
        reason = str(error).splitlines()[-1].split(" Some common causes")[0]  # Ray's last line says why
        return WorkerLost(with_tail(reason, tail, log))
    return JobFailed(with_tail(reason, tail, log))


def with_tail(reason: str, tail: str, log: Path) -> str:
    """The message of an error: its reason, redacted, and the last lines of the worker's output."""
    return redact_text(f"{reason}\nlast lines of {log}:\n{tail}" if tail else reason)
