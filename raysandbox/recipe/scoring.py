"""Applies a row scorer to a data set with the recipe engine's readers and engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raysandbox.core.errors import UserError
from raysandbox.core.keys import FileStamps
from raysandbox.core.progress import Progress
from raysandbox.core.runner import RowScorer
from raysandbox.ops.base import OpResources
from raysandbox.recipe.blocks import Needs
from raysandbox.recipe.engines import Engine, engine_named
from raysandbox.recipe.execute import Run, staging_folder
from raysandbox.recipe.parts import Unit, UnitReport
from raysandbox.recipe.plan import InputPlan, choose_engine, plan_input
from raysandbox.recipe.prepare import quarantine_file, units_of
from raysandbox.recipe.schema import Recipe, export_format
from raysandbox.recipe.score_lines import ScoredLines, file_of_lines, remember_lines, scored_lines
from raysandbox.recipe.score_work import ScoreWork, memory_of
from raysandbox.recipe.writers import Target, write_output

__all__ = ["DatasetScorers"]

_DEVICE_UNITS = 64  # pieces of a data set that a model works on: workers stay busy, and a lost one costs little


@dataclass(frozen=True)
class _Found:
    """The scores of a data set.

    Attributes:
        table: the scorer's columns.
        made: whether some were not known before.
        keepable: whether the scores of all rows can be kept.
    """

    table: pa.Table
    made: bool
    keepable: bool


class DatasetScorers:
    """`core.runner.Scorers` on the recipe engine.

    Args:
        engine: "auto" (in process up to 64 MB of input, on Ray above), "local", "ray", or an engine.
        quarantine_dir: folder for lines that cannot be read; by default that of the output.
        progress: receives progress.
        block_bytes: bytes of input per unit of work, for scorers that take their time.
        device: what each worker of a scorer `on_device` holds, and how many there are.
        shared: the cache that runs share, in which the scores of a `core.runner.CachedScorer` are kept.
        use_cache: whether scores are taken from there and added there.
    """

    def __init__(
        self,
        engine: str | Engine = "auto",
        quarantine_dir: Path | None = None,
        progress: Progress | None = None,
        block_bytes: int | None = None,
        device: OpResources | None = None,
        shared: Path | None = None,
        use_cache: bool = True,
    ) -> None:
        self._engine = engine
        self._device = device or OpResources()
        self._block_bytes = block_bytes
        self._quarantine_dir = quarantine_dir
        self._progress = progress or Progress()
        self._shared = shared if use_cache else None

    def score(
        self,
        dataset_path: str,
        scorer: RowScorer,
        export_path: Path | None = None,
        *,
        on_device: bool = False,
        paths_as_written: bool = False,
    ) -> pa.Table:
        """Scores every row of a data set; those whose scores are kept from before are not scored again.

        Args:
            dataset_path: file, folder, glob or weighted mix.
            scorer: what to apply to each block of rows.
            export_path: where to write the rows with the new columns, if at all.
            on_device: whether the scorer works with a model on the job's devices: units of few rows on Ray
                Data, in a pool of workers that keep the model; whatever the size, unless the engine is set.
            paths_as_written: whether the scorer sees paths of media as they are written, with `FOLDER_COLUMN`.

        Returns:
            the scorer's columns, in input order; no columns when there are no rows.

        Raises:
            ConfigError: there is no such data set, or no format of that suffix.
            BadRowsError: a line cannot be read.
            UserError: the cluster does not hold the workers that a scorer on devices needs.
        """
        needs = Needs(media=(), folder=True) if paths_as_written else Needs()
        memory = memory_of(scorer, self._shared)
        work = ScoreWork(scorer, Path(), "nothing", needs=needs, memory=memory)
        plan = self._plan({"dataset_path": dataset_path}, on_device)
        path = None
        if memory is not None and export_path is None and not set(memory.columns) & set(needs.media):
            path = file_of_lines(plan)
        if memory is None or path is None:
            return self._scores(plan, work, on_device, export_path).table
        before = FileStamps.of([path])
        lines = scored_lines(path, memory.by_line)
        if lines is None:
            found = self._scores(plan, work, on_device, None)
            if found.keepable and not found.made:
                remember_lines(path, memory.by_line, found.table, before)
            return found.table
        if lines.complete:
            return lines.scores()
        found = self._new_lines(lines, work, on_device) if lines.mostly_known else None
        found = found or self._scores(plan, work, on_device, None)
        if found.keepable:
            lines.learn(found.table)
        return found.table

    def _plan(self, dataset: Mapping[str, Any], on_device: bool) -> InputPlan:
        recipe = Recipe.model_validate(dataset)
        plan = plan_input(recipe, self._block_bytes)
        if not on_device:
            return plan
        few = max(1, plan.size // _DEVICE_UNITS)
        return plan_input(recipe, self._block_bytes or few)

    def _new_lines(self, lines: ScoredLines, work: ScoreWork, on_device: bool) -> _Found | None:
        """The scores of a file of which few lines are new; None if it must be read after all."""
        with staging_folder(None) as folder:
            path = folder / "new.jsonl"
            if not lines.write_new(path):
                return None  # written anew in this moment
            plan = self._plan({"dataset": {"configs": [{"path": str(path)}]}}, on_device)
            try:
                found = self._scores(plan, work, on_device, None)
            except UserError:
                return None  # of the whole file the message has the right numbers
        # Without text in all of them, how they are read depends on the lines beside them.
        if not found.keepable or found.table.num_rows != lines.num_new:
            return None
        return replace(found, table=lines.with_new(found.table))

    def _scores(self, plan: InputPlan, work: ScoreWork, on_device: bool, export_path: Path | None) -> _Found:
        """The scores of all rows, read from the input."""
        target = None
        if export_path is not None:
            target = Target(export_path.absolute(), *export_format(str(export_path)))
        quarantine = None
        if target or self._quarantine_dir:
            quarantine = quarantine_file(target.path if target else Path("scores"), self._quarantine_dir)
        engine = self._engine
        if isinstance(engine, str):
            wanted = "ray" if on_device and engine == "auto" else engine
            engine = engine_named(choose_engine(wanted, plan.size))
        run = Run(engine, 0, quarantine, self._progress)
        with staging_folder(target.path if target else None) as staging:
            work = replace(work, staging=staging, sink=target.sink if target else "nothing")
            if on_device and engine.name == "ray":
                work = replace(work, resources=(self._device,), hide_gpus=self._device.num_gpus == 0)
            reports = _reports(run, work, units_of(plan))
            if target:
                write_output(target, reports)
        tables = [table for report in reports for table in report.columns]
        table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
        return _Found(table, any(report.scored for report in reports), not any(report.unnamed for report in reports))


def _reports(run: Run, work: ScoreWork, units: Sequence[Unit]) -> list[UnitReport]:
    """Does all units; while rows are scored whose scores are kept, others with the same scorer wait."""
    if work.memory is None:
        return run.run(work, units)
    reports: dict[int, UnitReport] = {}
    look_up = work.looking_up()
    if look_up.knows_first(units):  # likely all: then there is nothing to wait for
        reports = {report.index: report for report in run.run(look_up, units) if not report.unknown}
    look_up.forget()
    left = [unit for unit in units if unit.index not in reports]
    if left:
        with work.memory.held(run.progress):
            scoring = work.scoring()
            reports |= {report.index: report for report in run.run(scoring, left)}
            scoring.forget()
            scored = [part for report in reports.values() for part in report.scored if len(part[0])]
            if scored:
                tables = pa.concat_tables([table for _, table in scored], promote_options="permissive")
                work.memory.by_text.add(np.concatenate([digests for digests, _ in scored]), tables)
                work.memory.by_text.prune()
    return [reports[unit.index] for unit in units]
