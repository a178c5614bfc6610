"""Applies a row scorer to a data set with the recipe engine's readers and engines."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
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

_STATES: dict[str, Any] = {}  # of the scorer that this process ran last


@dataclass(frozen=True)
class _ScoreWork:
    """Scores the rows of units.

    Attributes:
        token: names this scorer's state in a worker.
        resources: a scorer asks for no worker of its own.
    """

    scorer: RowScorer
    staging: Path
    sink: Sink
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    resources: tuple[OpResources, ...] = ()

    def run(self, unit: Unit) -> UnitReport:
        """Does one unit."""
        if self.token not in _STATES:
            _STATES.clear()
            _STATES[self.token] = self.scorer.load()
        report = UnitReport(unit.index, [], [])
        with PartWriter(self.staging, self.sink, report) as writer:
            for block in blocks_of(unit.source, Needs()):
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
    """

    def __init__(
        self,
        engine: str | Engine = "auto",
        quarantine_dir: Path | None = None,
        progress: Progress | None = None,
        block_bytes: int | None = None,
    ) -> None:
        self._engine = engine
        self._block_bytes = block_bytes
        self._quarantine_dir = quarantine_dir
        self._progress = progress or Progress()

    def score(self, dataset_path: str, scorer: RowScorer, export_path: Path | None = None) -> pa.Table:
        """Scores every row of a data set.

        Args:
            dataset_path: file, folder, glob or weighted mix.
            scorer: what to apply to each block of rows.
            export_path: where to write the rows with the new columns, if at all.

        Returns:
            the scorer's columns, in input order; no columns when there are no rows.

        Raises:
            ConfigError: there is no such data set, or no format of that suffix.
            BadRowsError: a line cannot be read.
        """
        plan = plan_input(Recipe.model_validate({"dataset_path": dataset_path}), self._block_bytes)
        target = None
        if export_path is not None:
            target = Target(export_path.absolute(), *export_format(str(export_path)))
        quarantine = None
        if target or self._quarantine_dir:
            quarantine = quarantine_file(target.path if target else Path("scores"), self._quarantine_dir)
        engine = self._engine
        if isinstance(engine, str):
            engine = engine_named(choose_engine(engine, plan.size))
        run = Run(engine, 0, quarantine, self._progress)
        with staging_folder(target.path if target else None) as staging:
            work = _ScoreWork(scorer, staging, target.sink if target else "nothing")
            reports = run.run(work, units_of(plan))
            if target:
                write_output(target, reports)
        tables = [table for report in reports for table in report.columns]
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
