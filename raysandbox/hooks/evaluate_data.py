"""Scoring a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysandbox.core.registry import register
from raysandbox.evaluators.base import DATA_EVALUATORS
from raysandbox.hooks.base import Hook, Job, JobContext
from raysandbox.recipe.scoring import DatasetScorers

__all__ = ["EvaluateDataHook"]


@register("EvaluateDataHook")
class EvaluateDataHook(Hook):
    """Scores a data set by the evaluator that `type` names; returns the score or the scores."""

    components = DATA_EVALUATORS
    returns = ("score, or mapping of scores",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Scores; what the evaluator reports goes to the metrics."""
        evaluator = self.component(job.extra)
        scorers = DatasetScorers(quarantine_dir=context.quarantine, progress=context.progress)
        return [evaluator.evaluate(scorers, context.report)]
