"""`analyze`: the statistics of a recipe's filters over all rows, with nothing dropped."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_path, cache_dir
from raysandbox.core.keys import DigestMemo
from raysandbox.core.progress import Progress
from raysandbox.ops.base import Filter, Operator
from raysandbox.ops.batch import STATS_COLUMN
from raysandbox.recipe.engines import engine_named
from raysandbox.recipe.execute import Run, staging_folder
from raysandbox.recipe.inputs import split_name
from raysandbox.recipe.parts import UnitReport
from raysandbox.recipe.plan import choose_engine, plan_input
from raysandbox.recipe.prepare import load_recipe, quarantine_file, target_of, units_of, work_of
from raysandbox.recipe.rows import encode_row
from raysandbox.recipe.schema import Recipe
from raysandbox.recipe.store import StatisticsStore
from raysandbox.recipe.validators import check_missing
from raysandbox.recipe.waiting import settled
from raysandbox.recipe.writers import Target, write_output

if TYPE_CHECKING:
    from raysandbox.analysis.summary import Analysis

__all__ = ["AnalysisResult", "analysed_filters", "analyze"]

_WRITE_ROWS = 10_000


@dataclass(frozen=True)
class AnalysisResult:
    """What `analyze` did.

    Attributes:
        path: the data set with its statistics, or the file of the statistics alone.
        analysis: summaries, histograms and correlations.
        folder: where tables and plots are.
        rows: number of rows analysed.
        quarantined: bad rows set aside.
        engine: "local" or "ray".
        seconds: wall time.
        warnings: what the user should know.
    """

    path: str
    analysis: Analysis
    folder: str
    rows: int
    quarantined: int
    engine: str
    seconds: float
    warnings: tuple[str, ...]


def analyze(
    recipe: Mapping[str, Any] | str | Path | Recipe,
    *,
    out_dir: Path,
    quarantine_dir: Path | None = None,
    progress: Progress | None = None,
    engine: str | None = None,
    allow_user_code: bool = False,
    cache: bool = True,
    shared: Path | None = None,
) -> AnalysisResult:
    """Computes and summarises the statistics of every filter of a recipe, as Data-Juicer's analyser.

    Mappers, deduplicators and selectors are not applied.

    Args:
        recipe: the recipe, its mapping, or its file.
        out_dir: folder for tables, plots, and the statistics.
        quarantine_dir: folder for bad rows; by default `out_dir`.
        progress: receives progress.
        engine: "local", "ray" or "auto" instead of the recipe's.
        allow_user_code: whether code that the recipe names may run, such as custom operators.
        cache: whether statistics that earlier runs computed may be taken.
        shared: the cache that runs share; `~/.cache/raysandbox` by default.

    Raises:
        ConfigError: the recipe or its input is wrong.
        BadRowsError: more rows are bad than `max_bad_rows` allows.
        JobFailed: the recipe has no filter, or the input no rows.
    """
    from raysandbox.analysis.export import save
    from raysandbox.analysis.summary import summarise

    started = time.perf_counter()
    recipe, warnings = load_recipe(recipe, allow_user_code=allow_user_code)
    filters, left_out = analysed_filters(recipe.operators())
    warnings += left_out
    plan = plan_input(recipe)
    warnings += plan.warnings
    out_dir = out_dir.absolute()
    target = _target(recipe, out_dir)
    work = work_of(recipe, filters, target.sink if recipe.export_original_dataset else "nothing", analysis=True)
    shared = shared or cache_dir()
    memo = DigestMemo(shared / "digests")
    units = units_of(plan, memo if cache else None)
    if cache:
        work = work.recalling(StatisticsStore(shared / "statistics"), memo)
    quarantine = quarantine_file(target.path, quarantine_dir or out_dir)
    progress = progress or Progress()
    with settled(work, units, shared, progress) as work, staging_folder(target.path) as staging:
        chosen = choose_engine(engine or recipe.engine, plan.size, done=len(work.known) == len(units))
        run = Run(engine_named(chosen, recipe.np), recipe.bad_row_budget(), quarantine, progress)
        reports = run.run(replace(work, staging=staging, limit=run.unit_limit), units)
        check_missing(work.validators, run.missing, run.rows_in)
        stats = _gathered(reports)
        path = write_output(target, reports) if recipe.export_original_dataset else _write_stats(stats, target.path)
    analysis = summarise(stats, recipe.percentiles)
    save(analysis, out_dir)
    seconds = time.perf_counter() - started
    return AnalysisResult(path, analysis, str(out_dir), stats.num_rows, run.bad, chosen, seconds, tuple(warnings))


def analysed_filters(operators: Sequence[Operator]) -> tuple[list[Filter], list[str]]:
    """The filters to apply, and what is said about the rest."""
    filters: list[Filter] = []
    repeated: list[str] = []
    computed: set[str] = set()
    for op in operators:
        if isinstance(op, Filter):
            keys = {stat.key for stat in op.statistics()}
            if keys <= computed:
                repeated.append(op.type_name)
            else:
                filters.append(op)
                computed |= keys
    if not filters:
        raise JobFailed("the recipe has no filter: there are no statistics to analyse (add filters to `process`)")
    others = [op.type_name for op in operators if not isinstance(op, Filter)]
    warnings = []
    if others:
        warnings.append(f"an analysis applies filters only, without dropping rows; left out: {', '.join(others)}")
    if repeated:
        warnings.append(f"of filters with the same statistic the first is analysed; left out: {', '.join(repeated)}")
    return filters, warnings


def _target(recipe: Recipe, out_dir: Path) -> Target:
    """The data set with its statistics, or the statistics alone."""
    if not recipe.export_original_dataset:
        stem = split_name(Path(recipe.export_path).name)[0] if recipe.export_path else "dataset"
        return Target(out_dir / f"{stem}_stats.jsonl", "jsonl", "jsonl")
    if recipe.export_path:
        return target_of(recipe)
    return Target(out_dir / "dataset.jsonl", "jsonl", "jsonl", recipe.export_shard_size)


def _gathered(reports: Sequence[UnitReport]) -> pa.Table:
    tables = [table for report in reports for table in report.columns]
    if not tables:
        raise JobFailed("the input has no rows: there is nothing to analyse")
    return pa.concat_tables(tables, promote_options="permissive")


def _write_stats(stats: pa.Table, path: Path) -> str:
    """One line per row, in Data-Juicer's form: {"__dj__stats__": {…}}."""
    with atomic_path(path) as temporary, temporary.open("wb") as output:
        for batch in stats.to_batches(_WRITE_ROWS):
            output.writelines(encode_row({STATS_COLUMN: row}) + b"\n" for row in batch.to_pylist())
    return str(path)
