"""Scoring a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysandbox.core.registry import register
from raysandbox.executors.base import MODEL_EVALUATORS
from raysandbox.hooks._session import session_of
from raysandbox.hooks.base import Hook, Job, JobContext

__all__ = ["EvaluateModelHook"]


@register("EvaluateModelHook")
class EvaluateModelHook(Hook):
    """Scores a model by the evaluator that `type` names; returns the score or the scores."""

    components = MODEL_EVALUATORS
    uses_workers = True
    returns = ("score, or mapping of scores",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Scores on the workers that `resources` asks for; what the evaluator reports goes to the metrics."""
        return [self.component(job.extra).evaluate(session_of(job, context))]
