"""Refining a recipe's thresholds by a loss or score per row."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_write
from raysandbox.core.registry import register
from raysandbox.hooks.base import Hook, Job, JobContext, JobPaths
from raysandbox.recipe.measuring import Measurements, measure
from raysandbox.refine._bounds import write_recipe
from raysandbox.refine._feedback_plot import save_picture
from raysandbox.refine.model_feedback import FeedbackRefinement, MeasuredFilter, ModelFeedbackConfig, refine

__all__ = ["RefineRecipeViaModelFeedbackHook"]

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)  # the explanations are for the job's log, which takes what loggers let through

_PROBED = "probe.jsonl"  # what a model probe writes among its artefacts when it has no export_path


@register("RefineRecipeViaModelFeedbackHook")
class RefineRecipeViaModelFeedbackHook(Hook):
    """Sets a recipe's bounds where feedback per row gets better beyond chance; returns the new recipe's path."""

    takes_recipe = True
    needs_probe = True
    settings = ModelFeedbackConfig
    returns = ("path of the refined recipe",)
    returns_paths = True

    @classmethod
    def wants_probe(cls, extra: Mapping[str, Any]) -> bool:
        """Where the configuration names no data set with feedback."""
        return not extra.get("feedback")

    @classmethod
    def paths(cls, recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> JobPaths:
        """Reads the feedback; writes a recipe that differs from its own in thresholds only."""
        base = super().paths(recipe, extra)
        recipes = {path: recipe for path in base.writes} if recipe is not None else {}
        return JobPaths(base.reads, base.models, base.writes, recipes)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Refines and writes the recipe; `changes.md`, `feedback.json` and `feedback.png` explain it.

        Raises:
            JobFailed: there is no data set with feedback, or no row has any.
            UserError: `operators` names a filter that the recipe does not have.
        """
        settings = ModelFeedbackConfig.model_validate(job.extra)
        path = settings.feedback or _of_probe(job, context)
        measured = measure(
            job.recipe or {},
            path,
            settings.feedback_key,
            quarantine_dir=context.quarantine,
            progress=context.progress,
            allow_user_code=context.allow_user_code,
            cache=context.use_cache,
            shared=context.cache_dir,
        )
        feedback = np.asarray(measured.numbers.to_numpy(zero_copy_only=False), np.float64)
        if not np.isfinite(feedback).any():
            raise JobFailed(
                f"none of the {len(feedback)} rows of {path} has a number under '{settings.feedback_key}': "
                "set feedback_key to the column of the loss or score"
            )
        filters = [MeasuredFilter(*found) for found in measured.filters]
        refinement = refine(job.recipe or {}, filters, feedback, settings)
        write_recipe(refinement.recipe, Path(settings.path_refined_recipe))
        _explain(refinement, measured, settings, path, context)
        return [settings.path_refined_recipe]


def _of_probe(job: Job, context: JobContext) -> str:
    """What the probe of the same meta_name wrote.

    Raises:
        JobFailed: it wrote its rows elsewhere, or it was no model probe.
    """
    if context.probe is None:
        raise JobFailed(f"job {job.id}: no earlier probe has its meta_name: give both the same, or set `feedback`")
    path = context.probe / _PROBED
    if not path.is_file():
        raise JobFailed(
            f"job {job.id}: the probe of its meta_name left no rows with scores in {context.probe}: name its output "
            f"(`output: [probed]`) and take it (`input: {{extra_configs.feedback: -1.probed}}`), or set `feedback`"
        )
    return str(path)


def _explain(
    refinement: FeedbackRefinement,
    measured: Measurements,
    settings: ModelFeedbackConfig,
    path: str,
    context: JobContext,
) -> None:
    """Writes what was found to the job's log, metrics and artefacts."""
    name = settings.feedback_key.removeprefix("__dj__stats__.")
    notes = []
    if refinement.without_feedback:
        notes.append(f"{refinement.without_feedback} of {len(measured.numbers)} rows have no {name} and were left out")
    if measured.computed:
        notes.append(f"statistics computed, since the rows have none to go by: {', '.join(measured.computed)}")
    if measured.left_out:
        notes.append(f"not applied, since they decide over all rows at once: {', '.join(measured.left_out)}")
    for line in (refinement.verdict, *map(str, refinement.changes), *notes):
        logger.info("%s", line)
    picture = save_picture(refinement, name, context.artifacts / "feedback.png")
    text = [f"# Thresholds by {name}", refinement.verdict[0].upper() + refinement.verdict[1:] + "."]
    text.append("\n".join(f"- {change}" for change in refinement.changes))
    text += ["\n".join(f"- {note}" for note in notes)] if notes else []
    text += ["![feedback against the statistics](feedback.png)"] if picture else []
    atomic_write(context.artifacts / "changes.md", "\n\n".join(text) + "\n")
    atomic_write(context.artifacts / "feedback.json", json.dumps(_record(refinement, settings, path, notes), indent=1))
    old, new = (float(kept.mean()) for kept in refinement.kept)
    gain = refinement.gain.value if refinement.gain and refinement.moves else 0.0
    context.report({"changes": float(len(refinement.moves)), "gain": gain, "kept_before": old, "kept_after": new})


def _record(
    refinement: FeedbackRefinement, settings: ModelFeedbackConfig, path: str, notes: Sequence[str]
) -> dict[str, Any]:
    """Everything of `changes.md` as numbers."""
    return {
        "verdict": refinement.verdict,
        "settings": {**settings.model_dump(mode="json"), "feedback": path},
        "rows": len(refinement.feedback),
        "rows_without_feedback": refinement.without_feedback,
        "kept_before": float(refinement.kept[0].mean()),
        "kept_after": float(refinement.kept[1].mean()),
        "gain": asdict(refinement.gain) if refinement.gain else None,
        "changes": [
            {
                "position": refinement.filters[move.bound.owner].position,
                "operator": refinement.filters[move.bound.owner].filter.type_name,
                "argument": move.bound.argument,
                "old": move.old,
                "new": move.new,
                "kept_without": move.share[0],
                "kept_with": move.share[1],
                "gain": asdict(move.gain),
                "folds": move.folds,
            }
            for move in refinement.moves
        ],
        "lines": [str(change) for change in refinement.changes],
        "notes": list(notes),
    }
