"""Making a model produce outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysandbox.core.registry import register
from raysandbox.executors.base import INFERENCES
from raysandbox.hooks._session import session_of
from raysandbox.hooks.base import Hook, Job, JobContext

__all__ = ["InferModelHook"]


@register("InferModelHook")
class InferModelHook(Hook):
    """Runs a model on given inputs by the executor that `type` names; returns the outputs' directory or paths."""

    components = INFERENCES
    returns = ("directory or paths of the outputs",)
    returns_paths = True

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Infers on the workers that `resources` asks for."""
        return [self.component(job.extra).infer(session_of(job, context))]
