"""Processing a data set by a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_write
from raysandbox.core.registry import register
from raysandbox.hooks._forecast import statistics_forecast
from raysandbox.hooks.base import Hook, Job, JobContext, JobPaths
from raysandbox.recipe.api import process
from raysandbox.recipe.paths import recipe_models, recipe_paths

__all__ = ["ProcessDataHook"]


@register("ProcessDataHook")
class ProcessDataHook(Hook):
    """Processes a data set by a recipe; returns the `export_path`."""

    takes_recipe = True
    returns = ("export_path",)
    returns_paths = True

    @classmethod
    def paths(cls, recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> JobPaths:
        """Reads the recipe's data, writes its `export_path`."""
        reads, export_path = recipe_paths(recipe or {})
        return JobPaths(reads, recipe_models(recipe or {}), (export_path,) if export_path else ())

    @classmethod
    def forecast(cls, job: Job, cache_dir: Path, allow_user_code: bool) -> str:
        """How many statistics need not be computed."""
        return statistics_forecast(job, cache_dir, analysis=False, allow_user_code=allow_user_code)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Runs the recipe; row counts go to the metrics, those of every operator to `operators.json`."""
        recipe = job.recipe or {}
        result = process(
            recipe,
            quarantine_dir=context.quarantine,
            progress=context.progress,
            cache=context.use_cache,
            shared=context.cache_dir,
            allow_user_code=context.allow_user_code,
            expect_repeats=context.expect_repeats,
        )
        counts = {"rows_in": result.rows_in, "rows_out": result.rows_out, "quarantined": result.quarantined}
        context.report({name: float(value) for name, value in counts.items()})
        operators = [asdict(count) for count in result.ops]
        atomic_write(context.artifacts / "operators.json", json.dumps(operators, indent=2) + "\n")
        return [recipe.get("export_path") or result.path]
