"""What is particular to Ray Train 2.60: its controller, its process groups, its errors.

Ray Train starts a group of workers once, in the placement group that it is given; its own would stay
behind when its controller is ended. torch is imported in the workers only.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from raysandbox.core.errors import MissingExtraError
from raysandbox.runtime.placement import Resources, bundle

__all__ = ["Outcome", "Setting", "controller_for", "outcome_of"]

_TIMEOUT_S = 1800  # of an operation between workers: one may write a checkpoint while others wait
_SWITCHES = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # output goes to the job's logs
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass(frozen=True)
class Setting:
    """How the workers of a training are started.

    Attributes:
        resources: of the workers.
        runtime_env: of the workers.
        group: the placement group that holds their bundles.
        storage: a folder on this machine for what Ray Train writes.
        local: whether all workers run on this machine, and must not listen to the network.
    """

    resources: Resources
    runtime_env: Mapping[str, Any]
    group: Any
    storage: str
    local: bool


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        kind: the training ended, a worker failed, or refused for a reason that it names itself, a worker
            was lost, a bundle was, or all left since a node is about to go.
        value: what the first worker returned, or the reason.
        rank: of the worker that failed or was lost.
    """

    kind: Literal["done", "failed", "refused", "lost", "no room", "left"]
    value: str
    rank: int = 0


def controller_for(train: Callable[[], Any], setting: Setting) -> Any:
    """Starts Ray Train's controller, an actor on this node; its method `run` starts the workers and waits for them.

    Args:
        train: what each worker calls, with torch.distributed set up.
        setting: how they are started.

    Returns:
        the actor; besides Ray Train's methods it has `tell(rank, value)` and `told()`, in order.

    Raises:
        MissingExtraError: what Ray Train needs is not installed.
    """
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
    except ImportError as error:
        raise MissingExtraError("ray[train]", "video", "training in several workers") from error
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    started: list[Any] = []

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            from ray.train.v2._internal.callbacks.backend_setup import BackendSetupCallback

            return [BackendSetupCallback(self.backend_config)]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            started.append(_start_controller(given, setting))
            return _Nothing()

    resources = setting.resources
    scaling = ScalingConfig(
        num_workers=resources.num_workers,
        use_gpu=resources.num_gpus > 0,
        resources_per_worker=bundle(resources),
        placement_strategy=resources.strategy,
    )
    run = RunConfig(
        name=uuid.uuid4().hex,
        storage_path=setting.storage,
        failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        worker_runtime_env=dict(setting.runtime_env),
    )
    Trainer(train, backend_config=_backend_config(setting), scaling_config=scaling, run_config=run).fit()
    return started[0]


@dataclass(frozen=True)
class _Nothing:
    """In place of Ray Train's result, which is waited for elsewhere."""

    error: None = None


def _start_controller(given: Mapping[str, Any], setting: Setting) -> Any:
    import ray
    from ray.train.v2._internal.execution.controller.controller import TrainController
    from ray.train.v2._internal.execution.worker_group import worker_group
    from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Held(DefaultPlacementGroupHandle):
        def shutdown(self) -> None:
            """The driver removes it."""

    class Group(worker_group.WorkerGroup):
        def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> Any:
            return Held(setting.group)

    class Controller(TrainController):
        worker_group_cls = Group

        async def tell(self, rank: int, value: Any) -> None:
            self.__dict__.setdefault("_told", []).append((rank, value))

        async def told(self) -> list[tuple[int, Any]]:
            return list(self.__dict__.get("_told", []))

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    switches = {**_SWITCHES, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(setting.resources.timeout_s)}
    options = {"num_cpus": 0, "scheduling_strategy": here, "runtime_env": {"env_vars": switches}}
    return ray.remote(Controller).options(**options).remote(**given)


def _backend_config(setting: Setting) -> Any:
    """torch.distributed for Ray Train, which has it too, but imports torch wherever it looks at it.

    nccl is used where each worker has a GPU to itself that torch can use, else gloo. On one machine the
    workers meet in a file: torch's own meeting place listens on every interface.
    """
    import ray
    from ray.train._internal.utils import get_address_and_port
    from ray.train.backend import Backend, BackendConfig

    whole_gpus, local, storage = setting.resources.num_gpus >= 1, setting.local, setting.storage

    class Torch(Backend):
        share_cuda_visible_devices = False  # "cuda" means the worker's own

        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            able = whole_gpus and all(worker_group.execute(_has_nccl))
            if local:
                meeting = Path(storage, uuid.uuid4().hex).as_uri()
            else:
                host, port = worker_group.execute_single(0, get_address_and_port)
                meeting = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
            calls = [
                worker_group.execute_single_async(rank, _join, "nccl" if able else "gloo", meeting)
                for rank in range(len(worker_group))
            ]
            ray.get(calls)  # waits: the process group's own timeout ends each of them, with its message

    class TorchConfig(BackendConfig):
        @property
        def backend_cls(self) -> type:
            return Torch

    return TorchConfig()


def _has_nccl() -> bool:
    """Whether torch can use a GPU here, and nccl."""
    import torch

    return torch.cuda.is_available() and torch.distributed.is_nccl_available()


def _join(backend: str, meeting: str) -> None:
    """Joins the process group, in a worker."""
    from ray.train import get_context
    from torch import distributed

    context = get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    # As torchrun sets them: libraries look here for what they belong to.
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    distributed.init_process_group(backend, meeting, timedelta(seconds=_TIMEOUT_S), size, rank)


def outcome_of(result: Any) -> Outcome:
    """What Ray Train's result means; a lost worker outweighs what its loss made the others say."""
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal import exceptions

    error = result.error
    if error is None:
        return Outcome("done", result.return_value)
    if isinstance(error, WorkerGroupError):
        for rank, failure in error.worker_failures.items():
            if isinstance(failure, exceptions.WorkerHealthCheckFailedError | exceptions.WorkerHealthCheckTimeoutError):
                return Outcome("lost", _last_line(getattr(failure, "health_check_failure", failure)), rank)
        return Outcome("failed", "; ".join(str(failure) for failure in error.worker_failures.values()))
    cause = error.controller_failure if isinstance(error, ControllerError) else error
    if isinstance(cause, exceptions.WorkerGroupStartupTimeoutError):
        return Outcome("no room", str(cause))
    if isinstance(cause, exceptions.WorkerGroupStartupFailedError):
        return Outcome("lost", _last_line(cause.__cause__ or cause))
    return Outcome("failed", _last_line(cause))


def _last_line(error: BaseException) -> str:
    """Ray's errors say in the last line why."""
    return str(error).strip().splitlines()[-1].split(" Some common causes")[0]
