"""Work on data that no recipe does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raysandbox.core.registry import register
from raysandbox.executors.base import DATA_EXECUTORS
from raysandbox.hooks._session import session_of
from raysandbox.hooks.base import Hook, Job, JobContext

__all__ = ["GeneralDataExecutorHook"]


@register("GeneralDataExecutorHook")
class GeneralDataExecutorHook(Hook):
    """Does with data what the executor that `type` names does; returns the path or paths that it wrote."""

    components = DATA_EXECUTORS
    returns = ("path or paths of what was written",)
    returns_paths = True

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Executes on the workers that `resources` asks for, where it needs any."""
        return [self.component(job.extra).execute(session_of(job, context))]
