"""What is particular to Ray Train 2.60: its settings, its process groups, its errors. Called by the coordinator."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raysandbox.runtime.placement import Resources, bundle

__all__ = ["Outcome", "Setting", "fit"]

# Switches that Ray Train reads where `fit` is called and passes on to its actors.
_SWITCHES = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # output goes to the job's logs
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths start where the driver runs
}


@dataclass(frozen=True)
class Setting:
    """How the workers of a training are started.

    Attributes:
        resources: of the workers.
        runtime_env: of the workers.
        storage: a folder for what Ray Train writes.
        local: whether all workers run on this machine, and must not listen to the network.
    """

    resources: Resources
    runtime_env: Mapping[str, Any]
    storage: str
    local: bool


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        kind: the training ended, a worker failed, or refused for a reason that it names itself, a worker
            was lost, or there was no room for all of them.
        value: what the first worker returned, or the reason.
        rank: of the worker that failed or was lost.
    """

    kind: Literal["done", "failed", "refused", "lost", "no room"]
    value: str
    rank: int = 0


def fit(train: Callable[[], Any], setting: Setting) -> Outcome:
    """Runs a function in each worker, with torch.distributed between them, once."""
    os.environ.update(_SWITCHES)
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(setting.resources.timeout_s)
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

    resources = setting.resources
    scaling = ScalingConfig(
        num_workers=resources.num_workers,
        use_gpu=resources.num_gpus > 0,
        resources_per_worker=bundle(resources),
        placement_strategy=resources.strategy,
        label_selector=dict(resources.label_selector) or None,
    )
    run = RunConfig(
        name=uuid.uuid4().hex,
        storage_path=setting.storage,
        failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        worker_runtime_env=dict(setting.runtime_env),
    )
    trainer = _trainer_class()(train, torch_config=_torch_config(setting), scaling_config=scaling, run_config=run)
    try:
        return Outcome("done", trainer.fit().return_value)
    except TrainingFailedError as error:
        return _outcome_of(error)


def _trainer_class() -> type:
    """TorchTrainer without the detached actor that removes the placement group of a controller that died.

    It asks Ray's dashboard whether the controller lives, which a local Ray does not have, and would stay.
    Ray removes the group by itself, since its creator is gone.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import placement_group_callback

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            cleaner = placement_group_callback.PlacementGroupCleanerCallback
            return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, cleaner)]

    return Trainer


def _torch_config(setting: Setting) -> Any:
    """Ray Train's settings of torch.distributed, with a backend of our own.

    nccl is used where each worker has a GPU to itself that torch can use, else gloo. On one machine the
    workers meet in a file: torch's own meeting place listens on every interface.
    """
    import ray
    from ray.train.torch import config as torch_config

    whole_gpus = setting.resources.num_gpus >= 1
    local, storage = setting.local, setting.storage

    class Backend(torch_config._TorchBackend):
        share_cuda_visible_devices = False  # "cuda" means the worker's own

        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            able = whole_gpus and all(worker_group.execute(_has_nccl))
            backend_config.backend = "nccl" if able else "gloo"
            if not local:
                super().on_start(worker_group, backend_config)
                return
            worker_group.execute(torch_config._set_torch_distributed_env_vars)
            calls = [
                worker_group.execute_single_async(
                    rank,
                    torch_config._setup_torch_process_group,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=Path(storage, "rendezvous").as_uri(),
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
            ray.get(calls)

        def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
            """The workers end anyway; waiting for a process group with a lost member takes long."""

    class Config(torch_config.TorchConfig):
        @property
        def backend_cls(self) -> type:
            return Backend

    return Config()


def _has_nccl() -> bool:
    """Whether torch can use a GPU here, and nccl."""
    import torch

    return torch.cuda.is_available() and torch.distributed.is_nccl_available()


def _outcome_of(error: Exception) -> Outcome:
    """What an error of `fit` means; a lost worker outweighs what its loss made the others say."""
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal import exceptions

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
