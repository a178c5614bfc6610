"""Looking at a data set through a model: a sample of it, a loss or score per row, and the hardest rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.files import atomic_path, remove
from raysandbox.core.names import is_remote
from raysandbox.core.registry import register
from raysandbox.core.runner import RowScorer
from raysandbox.executors.base import MODEL_PROBES
from raysandbox.hooks._session import session_of
from raysandbox.hooks.base import Hook, Job, JobContext, JobPaths
from raysandbox.ops.batch import STATS_COLUMN, Batch
from raysandbox.recipe.api import process
from raysandbox.recipe.paths import recipe_paths
from raysandbox.recipe.problems import parse_recipe
from raysandbox.recipe.rows import decode_row, encode_row, has_long_number
from raysandbox.recipe.schema import Recipe, export_format, step_of
from raysandbox.recipe.scoring import DatasetScorers
from raysandbox.recipe.worker_engine import WorkerEngine

if TYPE_CHECKING:
    from raysandbox.analysis.summary import Analysis

__all__ = ["ProbeViaModelInferHook"]

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)  # the hardest rows are for the job's log, which takes what loggers let through

_LOSS = "model_loss"  # what every probe gives: the higher, the harder
_UNIT_BYTES = 256 << 10  # of rows that a worker gets at once
_SHOWN_CHARACTERS = 160
# Keys of a recipe that say what becomes of the rows, which is another thing here.
_NOT_OF_A_SAMPLE = ("export_path", "export_type", "export_shard_size", "open_tracer", "op_fusion")


@register("ProbeViaModelInferHook")
class ProbeViaModelInferHook(Hook):
    """Runs a model on a sample of a data set; returns the path of the rows with their scores."""

    takes_recipe = True
    components = MODEL_PROBES
    uses_workers = True
    is_probe = True
    returns = ("path of the sampled rows with scores",)
    returns_paths = True

    @classmethod
    def paths(cls, recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> JobPaths:
        """Reads the recipe's data and the model, writes the recipe's `export_path` if there is one."""
        reads, export_path = recipe_paths(recipe or {})
        component = super().paths(recipe, extra)
        exported = (export_path,) if export_path else ()
        return JobPaths((*reads, *component.reads), component.models, (*exported, *component.writes))

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Samples, scores and sums up; the same files as an analysis are left for refinements.

        Raises:
            UserError: the model brings code that may not run.
            JobFailed: the sample is empty, no row has a loss, or a loss is not a number.
        """
        recipe = parse_recipe(job.recipe or {}, allow_user_code=context.allow_user_code)
        read = {"text_key": recipe.field_keys().text} if "text_key" in self.model(job.extra).model_fields else {}
        probe = self.component({**read, **job.extra})
        if probe.trust_remote_code and not context.allow_user_code:
            raise UserError("trust_remote_code runs code that lies beside the model: allow it with --allow-user-code")
        target = _target(recipe, context.artifacts)
        workers = WorkerEngine(session_of(job, context).workers, f"{job.name}: {probe.type_name} model")
        scorers = DatasetScorers(workers, context.quarantine, block_bytes=_UNIT_BYTES)
        sample = _sampled(job.recipe or {}, recipe, context, target)
        try:
            scored = scorers.score(str(sample), _IntoStatistics(probe.scorer()), target)
        finally:
            remove(sample)
        analysis = _summed_up(_statistics(scored, probe.type_name), recipe, context)
        _list_hardest(target, min(probe.num_hardest, analysis.numeric[_LOSS].count), context)
        return [recipe.export_path or str(target)]


def _target(recipe: Recipe, artifacts: Path) -> Path:
    """Where the rows with their scores go.

    Raises:
        UserError: it is a URL.
    """
    if is_remote(recipe.export_path):
        raise UserError(f"export_path: a model probe writes to a file, not to {recipe.export_path}")
    return Path(recipe.export_path).expanduser().absolute() if recipe.export_path else artifacts / "probe.jsonl"


def _sampled(raw: Mapping[str, Any], recipe: Recipe, context: JobContext, target: Path) -> Path:
    """The sample as a file among the job's artefacts.

    Raises:
        JobFailed: no row was chosen.
    """
    sample = context.artifacts / f"sample.{'parquet' if export_format(str(target))[0] == 'parquet' else 'jsonl'}"
    result = process(
        {
            **{key: value for key, value in raw.items() if key not in _NOT_OF_A_SAMPLE},
            "process": [_selection(recipe)],
            "export_path": str(sample),
            "keep_stats_in_res_ds": True,
        },
        quarantine_dir=context.quarantine,
        progress=context.progress,
        cache=False,
        shared=context.cache_dir,
        allow_user_code=context.allow_user_code,
    )
    if result.rows_out == 0:
        raise JobFailed(
            f"none of the {result.rows_in} rows was chosen: raise data_probe_ratio ({recipe.data_probe_ratio:g}), or "
            f"look at dataset_path"
        )
    context.report({"rows_in": float(result.rows_in), "rows": float(result.rows_out)})
    return sample


def _selection(recipe: Recipe) -> dict[str, Any]:
    """The operator that chooses rows; a selector takes its parameters from the recipe's `process`.

    Raises:
        UserError: there are no parameters for the selector.
    """
    algorithm, ratio = recipe.data_probe_algo, recipe.data_probe_ratio
    steps = [step_of(step) for step in recipe.process]
    given = next((parameters for name, parameters in steps if name == algorithm), None)
    left_out = [name for name, parameters in steps if parameters is not given]
    if left_out:
        logger.warning("a model probe applies no operators; left out: %s", ", ".join(left_out))
    if algorithm == "uniform":
        return {"random_selector": {"select_ratio": ratio}}
    if not given or "field_key" not in given:
        raise UserError(
            f"data_probe_algo is {algorithm}, and `process` does not say what it goes by "
            f"(add `- {algorithm}: {{field_key: …}}` to process)"
        )
    bounded = given.get("top_ratio") is not None or given.get("topk") is not None
    if bounded and ratio != 1:
        logger.warning("data_probe_ratio (%g) has no effect: %s has bounds of its own", ratio, algorithm)
    return {algorithm: dict(given) if bounded else {**given, "top_ratio": ratio}}


@dataclass(frozen=True)
class _IntoStatistics:
    """Makes a scorer's columns statistics of the rows, beside those that they have already."""

    scorer: RowScorer

    def load(self) -> Any:
        return self.scorer.load()

    def score(self, table: pa.Table, state: Any) -> Mapping[str, pa.ChunkedArray]:
        """Returns the statistics column."""
        found = self.scorer.score(table, state)
        return {STATS_COLUMN: Batch.from_table(table).with_stats(found).to_table(with_stats=True).column(STATS_COLUMN)}


def _statistics(scored: pa.Table, kind: str) -> pa.Table:
    """The statistics as columns.

    Raises:
        JobFailed: no row has a loss, or a loss is not a number.
    """
    structs = scored.column(STATS_COLUMN).combine_chunks()
    stats = pa.table({field.name: structs.field(field.name) for field in structs.type})
    losses = stats.column(_LOSS).drop_null().to_pylist()
    if not losses:
        raise JobFailed(f"the {kind} model gives none of the {len(structs)} rows a loss: set text_key, or label_key")
    broken = sum(not math.isfinite(loss) for loss in losses)
    if broken:
        raise JobFailed(
            f"the loss of {broken} of {len(structs)} rows is not a number: the model's weights are broken, or too "
            f"large for its dtype (bfloat16 and float32 reach further than float16)"
        )
    if len(losses) < len(structs):
        logger.warning(
            "%d of %d rows have no loss: no text, or nothing to go by", len(structs) - len(losses), len(structs)
        )
    return stats


def _summed_up(stats: pa.Table, recipe: Recipe, context: JobContext) -> Analysis:
    """Writes tables and plots as an analysis does; moments and quantiles go to the metrics."""
    from raysandbox.analysis.export import save
    from raysandbox.analysis.summary import summarise

    analysis = summarise(stats, recipe.percentiles)
    save(analysis, context.artifacts)
    for name, summary in analysis.numeric.items():
        values = {"mean": summary.mean, "std": summary.std}
        values |= {
            f"p{fraction * 100:g}": value
            for fraction, value in zip(recipe.percentiles, summary.percentiles, strict=True)
        }
        context.report({f"{name}.{measure}": value for measure, value in values.items() if value is not None})
    return analysis


def _list_hardest(scored: Path, count: int, context: JobContext) -> None:
    """Writes the rows with the highest losses, the hardest first, and logs the start of each."""
    if count == 0:
        return
    path = context.artifacts / "hardest.jsonl"
    process(
        {
            "dataset": {"configs": [{"path": str(scored)}]},
            "process": [{"topk_specified_field_selector": {"field_key": f"{STATS_COLUMN}.{_LOSS}", "topk": count}}],
            "export_path": str(path),
            "keep_stats_in_res_ds": True,
        },
        progress=context.progress,
        cache=False,
        shared=context.cache_dir,
    )
    lines = path.read_bytes().splitlines()
    rows = [decode_row(line, long_numbers=has_long_number(line)) for line in lines]
    rows.sort(key=lambda row: row[STATS_COLUMN][_LOSS], reverse=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(encode_row(row) + b"\n" for row in rows))
    for row in rows:
        shown = {name: value for name, value in row.items() if name != STATS_COLUMN}
        start = encode_row(shown).decode()[:_SHOWN_CHARACTERS]
        logger.info("%s %.4f: %s", _LOSS, row[STATS_COLUMN][_LOSS], start)
