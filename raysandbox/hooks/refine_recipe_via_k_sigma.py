"""Refining a recipe's thresholds by the analysis of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysandbox.analysis.export import load
from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_write
from raysandbox.core.registry import register
from raysandbox.hooks.base import Hook, Job, JobContext, JobPaths
from raysandbox.refine.k_sigma import KSigmaConfig, refine, write_recipe

__all__ = ["RefineRecipeViaKSigmaHook"]


@register("RefineRecipeViaKSigmaHook")
class RefineRecipeViaKSigmaHook(Hook):
    """Sets a recipe's bounds to mean ± k·std of the probe of the same meta_name; returns its path."""

    takes_recipe = True
    needs_probe = True
    settings = KSigmaConfig
    returns = ("path of the refined recipe",)
    returns_paths = True

    @classmethod
    def paths(cls, recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> JobPaths:
        """Writes a recipe that differs from its own in thresholds only."""
        base = super().paths(recipe, extra)
        recipes = {path: recipe for path in base.writes} if recipe is not None else {}
        return JobPaths(writes=base.writes, recipes=recipes)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Refines and writes the recipe; every change is explained in `changes.md`."""
        settings = KSigmaConfig.model_validate(job.extra)
        if context.probe is None:
            raise JobFailed(f"job {job.id}: no earlier probe has its meta_name; give both the same")
        refinement = refine(job.recipe or {}, load(context.probe), settings.k)
        write_recipe(refinement.recipe, Path(settings.path_k_sigma_recipe))
        lines = [f"- {change}" for change in refinement.changes]
        atomic_write(context.artifacts / "changes.md", "\n".join(lines) + "\n")
        return [settings.path_k_sigma_recipe]
