"""A trainer without a model: whole experiments run with it in CI, without torch."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.errors import JobFailed
from raysandbox.core.registry import register
from raysandbox.core.runner import TrainSession
from raysandbox.executors.base import ModelTrainer
from raysandbox.executors.train._staging import staged

__all__ = ["FakeTrainer"]

_FIRST_LOSS = 4.0
_NOISE = 0.02


@register("fake")
class FakeTrainer(ModelTrainer):
    """Trains nothing: reports a falling loss and writes `model.json`; for tests of experiments."""

    example: ClassVar[Mapping[str, Any]] = {
        "train_dataset": "./outputs/demo-process/demo-processed.jsonl",
        "work_dir": "./outputs/fake-model",
        "steps": 10,
    }

    train_dataset: InputPath = Field(description="file or folder; must exist, is not read")
    work_dir: OutputPath = Field(description="where model.json appears")
    steps: int = Field(10, ge=1, description="number of losses to report")
    seconds_per_step: float = Field(0.0, ge=0, description="how long a step takes")
    floor: float = Field(0.0, description="what the loss falls towards")
    silent: bool = Field(False, description="report no loss at all")
    fail_at: int | None = Field(None, ge=1, description="fail in this step instead of finishing")
    seed: int = Field(42, ge=0, description="seed of the losses' noise")

    def train(self, session: TrainSession) -> str:
        """Reports `loss` for each step and writes the model.

        Raises:
            JobFailed: the data set does not exist, or step `fail_at` was reached.
        """
        if not Path(self.train_dataset).exists():
            raise JobFailed(f"train_dataset: {self.train_dataset} does not exist")
        with staged(Path(self.work_dir)) as (folder, summary):
            losses = [self._step(session, step) for step in range(1, self.steps + 1)]
            summary.update(iterations=self.steps, first_loss=losses[0], last_loss=losses[-1], seed=self.seed)
            model = {"steps": self.steps, "seed": self.seed, "loss": losses[-1]}
            (folder / "model.json").write_text(json.dumps(model) + "\n", encoding="utf-8")
        return self.work_dir

    def _step(self, session: TrainSession, step: int) -> float:
        time.sleep(self.seconds_per_step)
        if step == self.fail_at:
            raise JobFailed(f"the fake training fails at step {step}, as fail_at says")
        noise = random.Random(self.seed * 1_000_003 + step).uniform(-_NOISE, _NOISE)
        loss = self.floor + _FIRST_LOSS * math.exp(-2 * step / self.steps) + noise
        if not self.silent:
            session.report({"loss": loss}, step=step)
        return loss
