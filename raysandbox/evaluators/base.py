"""Data evaluators: what `EvaluateDataHook` runs, chosen by `extra_configs.type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry
from raysandbox.core.runner import WorkSession

__all__ = ["DATA_EVALUATORS", "DataEvaluator"]

DATA_EVALUATORS = Registry("data evaluator", ["raysandbox.evaluators"])


class DataEvaluator(Component):
    """Scores a data set."""

    registry: ClassVar[Registry] = DATA_EVALUATORS

    def evaluate(self, session: WorkSession) -> float | Mapping[str, Any] | tuple[Any, ...]:
        """Returns the score, or a mapping of scores; a tuple holds several outputs of the job.

        Args:
            session: runs scorers and workers, receives the metrics worth watching.

        Raises:
            JobFailed: there is nothing to score, or the result is not a number.
        """
        raise NotImplementedError
