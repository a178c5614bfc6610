"""Losses in the lines that a training script writes."""

from __future__ import annotations

import math
import re

from raysandbox.core.runner import Report

__all__ = ["LossReader"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf(?:inity)?|nan"
# `step_loss=0.12, lr=2e-5` of a progress bar; `loss: 0.12`; `{'train_loss': 0.12}`.
_VALUE = re.compile(
    rf"(?<![\w.])(step_loss|train_loss|loss|lr|learning_rate|grad_norm)['\"]?\s*[=:]\s*({_NUMBER})(?![\w.])",
    re.IGNORECASE,
)
_BAR = re.compile(r"(\d+)/(\d+) \[")  # tqdm: `12/100 [00:03<00:27, …`
_STEP = re.compile(r"\b(?:global_)?step['\"]?[\s=:]*(\d+)", re.IGNORECASE)
_NAMES = {"step_loss": "loss", "train_loss": "loss", "learning_rate": "lr"}


class LossReader:
    """Finds losses and learning rates by step and reports each step once, with its last values.

    A progress bar first shows a new step with the values of the step before: so a step is reported
    when the next one is seen, and the last one by `finish`.

    Args:
        report: receives `loss`, `lr` and `grad_norm`, as far as a line has them.

    Attributes:
        step: the step that was seen last.
        losses: number of steps reported with a loss.
        last: the last loss that was reported; None before the first.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.step: int | None = None
        self._values: dict[str, float] = {}
        self.losses = 0
        self.last: float | None = None

    def read(self, line: str) -> None:
        """Looks at a line of output."""
        values: dict[str, float] = {}
        for found in _VALUE.finditer(line):
            name = found[1].lower()
            values[_NAMES.get(name, name)] = float(found[2])
        if "loss" not in values:
            return
        bar = _BAR.search(line)
        said = bar or _STEP.search(line)
        step = int(said[1]) if said else (self.step or 0) + 1
        if step != self.step:
            self.finish()
        self.step = step
        self._values |= values

    def finish(self) -> None:
        """Reports what was seen last."""
        if self._values:
            self._report(self._values, self.step)
            self.losses += 1
            self.last = self._values["loss"]
        self._values = {}

    @property
    def is_finite(self) -> bool:
        """Whether the last loss is a number; also before the first."""
        return self.last is None or math.isfinite(self.last)
