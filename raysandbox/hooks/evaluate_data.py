"""Scoring a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysandbox.core.registry import register
from raysandbox.evaluators.base import DATA_EVALUATORS
from raysandbox.hooks._session import session_of
from raysandbox.hooks.base import Hook, Job, JobContext

__all__ = ["EvaluateDataHook"]


@register("EvaluateDataHook")
class EvaluateDataHook(Hook):
    """Scores a data set by the evaluator that `type` names; returns the score or the scores."""

    components = DATA_EVALUATORS
    returns = (
        "score, or mapping of scores; of accuracy and mse the results of each file",
        "of accuracy and mse the best value",
    )

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Scores; what the evaluator reports goes to the metrics."""
        found = self.component(job.extra).evaluate(session_of(job, context))
        return found if isinstance(found, tuple) else [found]
