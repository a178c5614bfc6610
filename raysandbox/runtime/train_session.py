"""A training inside of a worker: what it gets, and what becomes of its errors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.memory import memory_failures
from raysandbox.core.runner import Report
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.draining import own_node_drains
from raysandbox.runtime.unit_actor import device_for, guarded
from raysandbox.runtime.watcher_actor import Reporter

__all__ = ["Training"]


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

    def must_leave(self) -> bool:
        """Whether this node is being drained."""
        return own_node_drains()


@dataclass(frozen=True)
class Training:
    """A training to be sent to its workers.

    Attributes:
        trainer: what trains.
        report: sends metrics to the watcher.
        has_gpu: whether each worker holds a GPU.
        log_dir: for log files of the training's own.
        prepared: what the trainer prepared.
        world_size: number of workers.
        folder: the driver's current directory, where relative paths of the configuration start.
    """

    trainer: ModelTrainer
    report: Reporter
    has_gpu: bool
    log_dir: Path
    prepared: Any = None
    world_size: int = 1
    folder: Path = field(default_factory=Path.cwd)

    def run(self, rank: int = 0) -> str:
        """Trains, in the driver's directory if it is there; the metrics are with the watcher when it returns.

        The workers of a Ray that was started elsewhere begin in a directory of its own.

        Raises:
            UserError: the training failed.
        """
        if self.folder.is_dir():
            os.chdir(self.folder)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        device = device_for(self.has_gpu)
        session = Session(self.report, device, self.log_dir, self.prepared, rank, self.world_size)
        try:
            return guarded(self._train, session)
        finally:
            self.report.client.flush()

    def _train(self, session: Session) -> str:
        with memory_failures(self.trainer):
            return self.trainer.train(session)
