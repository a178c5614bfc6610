"""Looking at a data set: the statistics of a recipe's filters, summarised and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysandbox.core.registry import register
from raysandbox.hooks._forecast import statistics_forecast
from raysandbox.hooks.base import Hook, Job, JobContext, JobPaths
from raysandbox.recipe.api import analyze
from raysandbox.recipe.paths import recipe_models, recipe_paths

__all__ = ["ProbeViaAnalyzerHook"]


@register("ProbeViaAnalyzerHook")
class ProbeViaAnalyzerHook(Hook):
    """Analyses a data set by a recipe's filters; returns the path of the data with statistics."""

    takes_recipe = True
    is_probe = True
    returns = ("path of the data set with statistics, or of the statistics",)
    returns_paths = True

    @classmethod
    def paths(cls, recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> JobPaths:
        """Reads the recipe's data; writes the data with statistics when the recipe asks for it."""
        recipe = recipe or {}
        reads, export_path = recipe_paths(recipe)
        exports = bool(recipe.get("export_original_dataset")) and bool(export_path)
        return JobPaths(reads, recipe_models(recipe), (str(export_path),) if exports else ())

    @classmethod
    def forecast(cls, job: Job, cache_dir: Path, allow_user_code: bool) -> str:
        """How many statistics need not be computed."""
        return statistics_forecast(job, cache_dir, analysis=True, allow_user_code=allow_user_code)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Analyses; mean and standard deviation of every statistic go to the metrics."""
        result = analyze(
            job.recipe or {},
            out_dir=context.artifacts,
            quarantine_dir=context.quarantine,
            progress=context.progress,
            allow_user_code=context.allow_user_code,
            cache=context.use_cache,
            shared=context.cache_dir,
        )
        context.report({"rows": float(result.rows)})
        for name, summary in result.analysis.numeric.items():
            if summary.mean is not None and summary.std is not None:
                context.report({f"{name}.mean": summary.mean, f"{name}.std": summary.std})
        return [result.path]
