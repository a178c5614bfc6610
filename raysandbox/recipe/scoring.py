"""Applies a row scorer to a data set with the recipe engine's readers and engines."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysandbox.core.progress import Progress
from raysandbox.core.runner import RowScorer
from raysandbox.ops.base import OpResources
from raysandbox.recipe.blocks import Needs
from raysandbox.recipe.engines import Engine, engine_named
from raysandbox.recipe.execute import Run, staging_folder
from raysandbox.recipe.parts import PartWriter, Sink, Unit, UnitReport
from raysandbox.recipe.plan import choose_engine, plan_input
from raysandbox.recipe.prepare import quarantine_file, units_of
from raysandbox.recipe.schema import Recipe, export_format
from raysandbox.recipe.units import blocks_of
from raysandbox.recipe.writers import Target, write_output

__all__ = ["DatasetScorers"]

_DEVICE_UNITS = 64  # pieces of a data set that a model works on: workers stay busy, and a lost one costs little
_STATES: dict[str, Any] = {}  # of the scorer that this process ran last


@dataclass(frozen=True)
class _ScoreWork:
    """Scores the rows of units.

    Attributes:
        token: names this scorer's state in a worker.
        resources: what the scorer's workers hold; empty when any worker will do.
        hide_gpus: whether its workers must not see the machine's GPUs: Ray shows them to all.
        needs: what the scorer needs of every row.
    """

    scorer: RowScorer
    staging: Path
    sink: Sink
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    resources: tuple[OpResources, ...] = ()
    hide_gpus: bool = False
    needs: Needs = field(default_factory=Needs)

    def run(self, unit: Unit) -> UnitReport:
        """Does one unit."""
        if self.token not in _STATES:
            _STATES.clear()
            if self.hide_gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
            _STATES[self.token] = self.scorer.load()
        report = UnitReport(unit.index, [], [])
        with PartWriter(self.staging, self.sink, report) as writer:
            for block in blocks_of(unit.source, self.needs):
                report.rows_in += len(block.places) + len(block.bad)
                writer.quarantine(block.bad)
                if not block.places:
                    continue
                columns = self.scorer.score(block.table, _STATES[self.token])
                report.rows_out += len(block.places)
                report.columns.append(pa.table(dict(columns)))
                table = block.table
                for name, values in columns.items():
                    table = table.drop_columns([name]) if name in table.column_names else table
                    table = table.append_column(name, values)
                writer.write(block, table)
        return report


class DatasetScorers:
    """`core.runner.Scorers` on the recipe engine.

    Args:
        engine: "auto" (in process up to 64 MB of input, on Ray above), "local", "ray", or an engine.
        quarantine_dir: folder for lines that cannot be read; by default that of the output.
        progress: receives progress.
        block_bytes: bytes of input per unit of work, for scorers that take their time.
        device: what each worker of a scorer `on_device` holds, and how many there are.
    """

    def __init__(
        self,
        engine: str | Engine = "auto",
        quarantine_dir: Path | None = None,
        progress: Progress | None = None,
        block_bytes: int | None = None,
        device: OpResources | None = None,
    ) -> None:
        self._engine = engine
        self._device = device or OpResources()
        self._block_bytes = block_bytes
        self._quarantine_dir = quarantine_dir
        self._progress = progress or Progress()

    def score(
        self,
        dataset_path: str,
        scorer: RowScorer,
        export_path: Path | None = None,
        *,
        on_device: bool = False,
        paths_as_written: bool = False,
    ) -> pa.Table:
        """Scores every row of a data set.

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
        plan = plan_input(Recipe.model_validate({"dataset_path": dataset_path}), self._block_bytes)
        if on_device:
            few = max(1, plan.size // _DEVICE_UNITS)
            plan = plan_input(Recipe.model_validate({"dataset_path": dataset_path}), self._block_bytes or few)
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
            needs = Needs(media=(), folder=True) if paths_as_written else Needs()
            work = _ScoreWork(scorer, staging, target.sink if target else "nothing", needs=needs)
            if on_device and engine.name == "ray":
                work = replace(work, resources=(self._device,), hide_gpus=self._device.num_gpus == 0)
            reports = run.run(work, units_of(plan))
            if target:
                write_output(target, reports)
        tables = [table for report in reports for table in report.columns]
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
