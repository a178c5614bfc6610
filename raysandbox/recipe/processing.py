"""`process`: one recipe from its input to its output."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.files import cache_dir
from raysandbox.core.keys import DigestMemo
from raysandbox.core.progress import Progress
from raysandbox.ops.base import Operator
from raysandbox.recipe.engines import engine_named
from raysandbox.recipe.execute import Run, staging_folder, sum_stats
from raysandbox.recipe.fused import Tally
from raysandbox.recipe.marker import Marker
from raysandbox.recipe.order import cheap_first, measured_first
from raysandbox.recipe.parts import InMemory, StatSum, Unit
from raysandbox.recipe.plan import choose_engine, plan_input, segments_of
from raysandbox.recipe.prepare import load_recipe, quarantine_file, target_of, units_of, work_of
from raysandbox.recipe.schema import Recipe
from raysandbox.recipe.store import StatisticsStore
from raysandbox.recipe.trace import write_traces
from raysandbox.recipe.units import Work, blocks_of
from raysandbox.recipe.validators import check_missing
from raysandbox.recipe.waiting import settled
from raysandbox.recipe.writers import Target, write_output

__all__ = ["OpCount", "Result", "StatSummary", "process"]


@dataclass(frozen=True)
class OpCount:
    """What one operator did: rows in and out, rows that it failed on, seconds of all workers together."""

    name: str
    rows_in: int
    rows_out: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class StatSummary:
    """A statistic over the rows that were kept."""

    count: int
    mean: float
    min: float
    max: float


@dataclass(frozen=True)
class Result:
    """What `process` did.

    Attributes:
        path: the output file, or a glob of its shards; "" when the rows stay in memory.
        rows_in: rows read, bad ones included.
        rows_out: rows kept.
        stats: each statistic over the rows that were kept.
        rows: the rows kept, when rows were given.
        ops: what each operator did, in order.
        quarantined: bad rows set aside.
        quarantine: the file that holds them, "" when there are none.
        engine: "local" or "ray".
        seconds: wall time.
        warnings: what the user should know.
        cached: whether an earlier run's output was found instead.
        recalled: statistics (one per row and operator) that were taken from the statistics store.
    """

    path: str
    rows_in: int
    rows_out: int
    stats: Mapping[str, StatSummary]
    rows: list[dict[str, Any]] | None
    ops: tuple[OpCount, ...]
    quarantined: int
    quarantine: str
    engine: str
    seconds: float
    warnings: tuple[str, ...]
    cached: bool = False
    recalled: int = 0


def process(
    recipe: Mapping[str, Any] | str | Path | Recipe,
    *,
    rows: Sequence[dict[str, Any]] | None = None,
    quarantine_dir: Path | None = None,
    progress: Progress | None = None,
    cache: bool = True,
    shared: Path | None = None,
    engine: str | None = None,
    block_bytes: int | None = None,
    allow_user_code: bool = False,
    expect_repeats: bool = False,
) -> Result:
    """Runs a recipe.

    Args:
        recipe: the recipe, its mapping, or its file.
        rows: rows to process in memory instead of a data set; they come back in `Result.rows`.
        quarantine_dir: folder for bad rows; by default that of the output.
        progress: receives progress.
        cache: whether the output of an earlier, equal run may be taken as it stands.
        shared: the cache that runs share; `~/.cache/raysandbox` by default.
        engine: "local", "ray" or "auto" instead of the recipe's.
        block_bytes: bytes of input per block, for tests and measurements.
        allow_user_code: whether code that the recipe names may run, such as custom operators.
        expect_repeats: whether runs with other thresholds follow. What they would need of the rows that
            this one drops is computed too, unless operators read media or have workers of their own; without
            this the second run with other thresholds does so, if the first dropped half of the rows at most.

    Raises:
        ConfigError: the recipe or its input is wrong.
        BadRowsError: more rows are bad than `max_bad_rows` allows.
    """
    started = time.perf_counter()
    recipe, warnings = load_recipe(recipe, allow_user_code=allow_user_code)
    operators = recipe.operators()
    if rows is not None:
        units = [Unit(0, InMemory(rows))] if rows else []
        work = work_of(recipe, operators, "memory")
        return _run(recipe, operators, work, units, None, "local", None, progress, warnings, started)
    target = target_of(recipe)
    plan = plan_input(recipe, block_bytes)
    warnings += plan.warnings
    shared = shared or cache_dir()
    memo = DigestMemo(shared / "digests")
    marker = Marker(target.path, recipe, operators, plan.files, memo)
    if cache and (known := marker.read()) is not None:
        return _from_json(known)
    marker.clear()
    work = work_of(recipe, operators, target.sink)
    units = units_of(plan, memo if cache else None)
    if recipe.op_fusion:
        operators = _ordered(recipe, operators, work, units)
        work = work_of(recipe, operators, target.sink)
    if cache:
        work = dataclasses.replace(work.recalling(StatisticsStore(shared / "statistics"), memo), wide=expect_repeats)
    quarantine = quarantine_file(target.path, quarantine_dir)
    with settled(work, units, shared, progress or Progress()) as work:
        chosen = choose_engine(engine or recipe.engine, plan.size, done=len(work.known) == len(units))
        result = _run(recipe, operators, work, units, target, chosen, quarantine, progress, warnings, started)
    marker.write(dataclasses.asdict(result))
    if work.recall is not None:
        work.recall.store.prune()
    return result


def _ordered(recipe: Recipe, operators: Sequence[Operator], work: Work, units: Sequence[Unit]) -> list[Operator]:
    """The operators with cheap filters first; measured on the first rows if the recipe says so."""
    if recipe.fusion_strategy == "probe" and units:
        sample = next(blocks_of(units[0].source, work.needs), None)
        if sample is not None and sample.places:
            return measured_first(operators, work.fused, sample)
    return cheap_first(operators)


def _run(
    recipe: Recipe,
    operators: Sequence[Operator],
    work: Work,
    units: Sequence[Unit],
    target: Target | None,
    engine: str,
    quarantine: Path | None,
    progress: Progress | None,
    warnings: list[str],
    started: float,
) -> Result:
    run = Run(engine_named(engine, recipe.np), recipe.bad_row_budget(), quarantine, progress or Progress())
    with staging_folder(target.path if target else None) as staging:
        work = dataclasses.replace(work, staging=staging, limit=run.unit_limit)
        reports = run.segments(segments_of(operators), work, units, recipe.seed)
        check_missing(work.validators, run.missing, run.rows_in)
        rows_out = sum(report.rows_out for report in reports)
        path = ""
        if target:
            path = write_output(target, reports)
            if work.trace is not None:
                write_traces(target.path.with_name("trace"), operators, run.samples)
    warnings += _findings(run.rows_in, run.tallies)
    if damaged := work.damaged + run.damaged:
        warnings.append(f"{damaged} damaged entries of the statistics store were computed again")
    return Result(
        path=path,
        rows_in=run.rows_in,
        rows_out=rows_out,
        stats={name: _summary(total) for name, total in sum_stats(reports).items() if total.count},
        rows=None if target else [row for report in reports for row in report.rows],
        ops=tuple(OpCount(**dataclasses.asdict(tally)) for tally in run.tallies),
        quarantined=run.bad,
        quarantine=str(quarantine) if run.bad and quarantine else "",
        engine=engine,
        seconds=time.perf_counter() - started,
        warnings=tuple(warnings),
        recalled=run.recalled,
    )


def _summary(total: StatSum) -> StatSummary:
    return StatSummary(total.count, total.total / total.count, total.low, total.high)


def _findings(rows_in: int, tallies: Sequence[Tally]) -> list[str]:
    """What looks wrong about the counts: a filter that does nothing, or leaves nothing."""
    if rows_in == 0:
        return ["the input has no rows; the output is empty"]
    found = []
    for tally in tallies:
        if tally.rows_in and tally.rows_out == 0:
            found.append(f"{tally.name} dropped all of its {tally.rows_in} rows")
        elif tally.rows_in and tally.rows_out == tally.rows_in and tally.name.endswith(("_filter", "_deduplicator")):
            found.append(f"{tally.name} kept all of its {tally.rows_in} rows")
    return found


def _from_json(known: Mapping[str, Any]) -> Result:
    """The result that a marker holds."""
    return Result(
        **{
            **known,
            "stats": {name: StatSummary(**values) for name, values in known["stats"].items()},
            "ops": tuple(OpCount(**op) for op in known["ops"]),
            "warnings": tuple(known["warnings"]),
            "cached": True,
        }
    )
