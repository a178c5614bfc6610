"""Small trainings without Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.executors.train.diffusers import DiffusersTrainer
from raysandbox.recipe.scoring import DatasetScorers
from tests.executors.video.in_process import InProcessSession
from tests.executors.video.tiny_pipelines import SIZES
from tests.ops.tiny_clips import save_clip


@dataclass
class Worker:
    """A `TrainSession`; `told` holds what was reported. It dies before `dies_at` reports a loss.

    Its node is drained while it does the step `drained_at`.
    """

    prepared: Any
    log_dir: Path = Path()
    device: str = "cpu"
    rank: int = 0
    world_size: int = 1
    dies_at: int | None = None
    drained_at: int | None = None
    told: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)

    def report(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.dies_at == step and "loss" in metrics:
            raise KeyboardInterrupt
        self.told.append((step, dict(metrics)))

    def must_leave(self) -> bool:
        return self.drained_at is not None and len(self.values("loss")) >= self.drained_at - 1

    def values(self, name: str) -> dict[int | None, float]:
        return {step: metrics[name] for step, metrics in self.told if name in metrics}


def clips_in(folder: Path, count: int, name: str = "clips") -> Path:
    """A training set of small clips in the layout of EasyAnimate's trainers."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"file_path": save_clip(folder / f"{name}{number}.mp4", number), "text": f"clip {number}", "type": "video"}
        for number in range(count)
    ]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows))
    return path


def trainer_of(model: Path, dataset: Path, output: Path, family: str = "easyanimate", **options: Any) -> Any:
    """A trainer of a tiny model, with numbers that let it learn within a few steps."""
    frames, height, width = SIZES[family]
    small = {
        "num_frames": frames,
        "height": height,
        "width": width,
        "stride": 1,
        "rank": 4,
        "alpha": 4,
        "learning_rate": 2e-3,
        "max_grad_norm": 1.0,
        "batch_size": 2,
        "max_steps": 6,
        "dtype": "fp32",
        "gradient_checkpointing": False,
    }
    paths = {"model": str(model), "dataset": str(dataset), "output_dir": str(output)}
    return DiffusersTrainer.model_validate({**small, **paths, **options})


def session_in(folder: Path, **options: Any) -> InProcessSession:
    """A job's session whose row scorers run in this process."""
    session = InProcessSession(folder, scorers=DatasetScorers("local"), **options)
    session.quarantine.mkdir(parents=True, exist_ok=True)
    return session


def trained(trainer: Any, job: Path, session: Mapping[str, Any] | None = None, **worker: Any) -> Worker:
    """Prepares and trains in this process."""
    prepared = trainer.prepare(session_in(job, **(session or {})))
    return finished(trainer, Worker(prepared, job, **worker))


def finished(trainer: Any, session: Worker) -> Worker:
    """Trains what was prepared."""
    assert trainer.train(session) == trainer.output_dir
    return session
