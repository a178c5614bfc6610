"""Training a model in Ray actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysandbox.core.registry import register
from raysandbox.executors.base import TRAINERS
from raysandbox.hooks._session import session_of
from raysandbox.hooks.base import Hook, Job, JobContext
from raysandbox.runtime.workers import run_in_worker

__all__ = ["TrainModelHook"]


@register("TrainModelHook")
class TrainModelHook(Hook):
    """Trains a model by the trainer that `type` names; returns the checkpoint or model directory."""

    components = TRAINERS
    uses_workers = True
    returns = ("checkpoint or model directory",)
    returns_paths = True

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Trains on the bundles that `resources` asks for; losses are reported while it runs."""
        trainer = self.component(job.extra)
        return [run_in_worker(trainer, job, context, trainer.prepare(session_of(job, context)))]
