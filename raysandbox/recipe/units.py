"""The unit of work of both engines: read one task, apply a segment, leave its rows in a part.

A unit runs in this process or in a worker, has no memory of other units, and writes only its own
files in the staging folder, so that it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysandbox.core.keys import DigestMemo
from raysandbox.ops.base import Deduplicator, OpResources
from raysandbox.ops.batch import META_COLUMN, STATS_COLUMN
from raysandbox.recipe.blocks import Block, Needs, Place, block_of_rows
from raysandbox.recipe.fused import Companions, FusedOps, Outcome
from raysandbox.recipe.inputs import ReadTask
from raysandbox.recipe.parts import InMemory, PartWriter, Sink, Staged, Unit, UnitReport, staged_blocks
from raysandbox.recipe.readers import read_task
from raysandbox.recipe.recall import Recall, RecallKeys, Replay, recall_keys
from raysandbox.recipe.row_digests import RowDigests
from raysandbox.recipe.store import StatisticsStore
from raysandbox.recipe.trace import TraceSpec, UnitTrace
from raysandbox.recipe.validators import Validator

__all__ = ["Work", "blocks_of"]


@dataclass(frozen=True)
class Work:
    """What all units of a pass have in common; sent to each worker once.

    Attributes:
        fused: the operators.
        needs: what they need of every row.
        staging: folder for parts.
        sink: what becomes of the rows.
        keep_stats: write the statistics column.
        keep_hashes: write the columns that deduplicators compare.
        gather_stats: report the statistics of every row.
        limit: bad rows after which a unit need not go on; None for no limit.
        recall: what the store keeps of this pass, None for nothing.
        trace: which rows to note on their way; replaying has none.
        validators: what else every row must hold when it is read.
        known: results that need no work, by the units' digests.
        missing: keys of what the store lacks of some unit.
        damaged: entries of the store that were found damaged when these were looked up.
        wide: whether the store is to know also the rows that filters drop, where that is possible.
    """

    fused: FusedOps
    needs: Needs
    staging: Path
    sink: Sink
    keep_stats: bool = False
    keep_hashes: bool = False
    gather_stats: bool = False
    limit: int | None = None
    recall: RecallKeys | None = None
    trace: TraceSpec | None = None
    validators: tuple[Validator, ...] = ()
    known: Mapping[str, Replay] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    damaged: int = 0
    wide: bool = False

    def recalling(self, store: StatisticsStore, memo: DigestMemo) -> Work:
        """The same work, with statistics taken from the store and added to it."""
        return replace(self, recall=self.keys_in(store, memo))

    def keys_in(self, store: StatisticsStore, memo: DigestMemo) -> RecallKeys:
        """Names of what the store keeps of this work."""
        form = [self.sink, self.keep_stats, self.keep_hashes]
        needs = [*self.needs.texts, *map(repr, self.validators)]
        with_results = self.keep_stats or self.keep_hashes
        return recall_keys(store, self.fused.operators, self.fused.keys, memo, needs, form, with_results=with_results)

    def with_known(self, units: Sequence[Unit]) -> Work:
        """The same work with the results of all units, if the store holds every one of them, or what it lacks."""
        known: dict[str, Replay] = {}
        missing: set[str] = set()
        damaged = 0
        most = 0 if self.recall is None else len({*self.recall.operators} - {None}) + self.replayable
        for unit in units:
            recall = self._recalled(unit)
            if recall is None:
                return replace(self, damaged=damaged)
            replay = self._replay(recall)
            if replay is None:
                missing |= self._missing(recall)
            else:
                known[unit.digest] = replay
            damaged += recall.damaged
            if len(missing) == most:
                break
        return replace(self, known={} if missing else known, missing=frozenset(missing), damaged=damaged)

    def _recalled(self, unit: Unit) -> Recall | None:
        """What the store knows of a unit; None where it is not asked, or the unit is no longer what it is named for."""
        return None if self.recall is None or not unit.digest or unit.stamps.changed else self.recall.open(unit.digest)

    @property
    def resources(self) -> tuple[OpResources, ...]:
        """What the operators ask that need workers of their own."""
        return tuple(asked for op in self.fused.operators if (asked := op.resources()) is not None)

    @property
    def replayable(self) -> bool:
        """Whether the store can hold the whole result of a unit."""
        looks_at_rows = self.trace is not None or self.validators
        return not looks_at_rows and self.sink in ("lines", "nothing")

    def _replay(self, recall: Recall) -> Replay | None:
        """What the store knows to be the unit's result; None when it does not know all of it."""
        if not self.replayable:
            return None
        return recall.replay(self.fused.operators, lines=self.sink == "lines", keep_all=self.fused.keep_all)

    def _missing(self, recall: Recall) -> set[str]:
        """Keys of what the store lacks of a unit."""
        lines, keep_all, replayable = self.sink == "lines", self.fused.keep_all, self.replayable
        return recall.missing(self.fused.operators, lines=lines, keep_all=keep_all, replayable=replayable)

    def run(self, unit: Unit) -> UnitReport:
        """Does one unit."""
        recall = self._recalled(unit)
        if recall is None:
            return self._compute(unit, None)
        report = self._replayed(unit, recall) or self._compute(unit, recall)
        if not unit.stamps.changed:  # else some of what was computed may be of another content
            recall.save()
        report.recalled += recall.hits
        report.damaged = recall.damaged
        return report

    def _replayed(self, unit: Unit, recall: Recall) -> UnitReport | None:
        """Does a unit of which all is known; None for another."""
        # What is known is how the rows are written at the end, not how they are staged for another segment.
        replay = self.known.get(unit.digest) or self._replay(recall) if self.replayable else None
        if replay is None or replay.media:
            return None
        lines = recall.lines(replay.rows) if self.sink == "lines" else (memoryview(b""), None)
        if lines is None:
            return None
        features = [[table] for table in replay.features] or [[] for _ in self.fused.deciders]
        report = UnitReport(unit.index, self.fused.tallies(), features, rows_in=replay.rows_read)
        for tally, (rows_in, rows_out) in zip(report.tallies, replay.counts, strict=True):
            tally.rows_in, tally.rows_out = rows_in, rows_out
        report.rows_out, report.recalled = len(replay.rows), replay.values
        self._summarise(report, replay.stats)
        with PartWriter(self.staging, self.sink, report) as writer:
            writer.write_bytes(*lines)
        return report

    def _compute(self, unit: Unit, recall: Recall | None) -> UnitReport:
        report = UnitReport(unit.index, self.fused.tallies(), [[] for _ in self.fused.deciders])
        trace = None if self.trace is None else UnitTrace(self.trace, self.fused.operators)
        wide = self._goes_wide(recall)
        with PartWriter(self.staging, self.sink, report, digests=True) as writer:
            for block in blocks_of(unit.source, replace(self.needs, checks=self.validators)):
                report.rows_in += len(block.places) + len(block.bad)
                report.missing.update(block.missing)
                left = None if self.limit is None else self.limit - report.bad
                outcome = self.fused.run(block, Companions(report.tallies, left, recall, trace, wide))
                writer.quarantine([*block.bad, *outcome.bad])
                if self.limit is not None and report.bad > self.limit:
                    if recall is not None:
                        recall.give_up_rows()
                    break
                self._report(report, outcome)
                written = self._written(writer, report, block, outcome)
                if recall is not None:
                    recall.end_block(block, *written, whole=self.replayable and not report.bad)
        report.samples = [] if trace is None else trace.samples
        return report

    def _goes_wide(self, recall: Recall | None) -> bool:
        """Whether the rows that filters drop are computed too: runs follow, or repeat, with other thresholds."""
        if recall is None or not self.replayable or self.sink != "lines" or not self.fused.can_be_wide:
            return False
        return self.wide or recall.only_thresholds_moved

    def _written(
        self, writer: PartWriter, report: UnitReport, block: Block, outcome: Outcome
    ) -> tuple[pa.Table, list[bytes] | None, np.ndarray]:
        """Writes what is left of a block; returns the rows that can be known of it, their lines, and their digests."""
        if outcome.every is not None and outcome.kept is not None:
            result = self._result(outcome.every)
            return result, *writer.write_some(block, result, outcome.kept)
        result, before = self._result(outcome), len(report.lines)
        lines = writer.write(block, result) if outcome.batch.num_rows else None
        return result, lines, RowDigests.joined(report.lines[before:]).digests

    def _report(self, report: UnitReport, outcome: Outcome) -> None:
        if not outcome.batch.num_rows:
            return
        report.rows_out += outcome.batch.num_rows
        for tables, table in zip(report.features, outcome.features, strict=True):
            tables.append(table)
        self._summarise(report, outcome.batch.stats)

    def _summarise(self, report: UnitReport, stats: Mapping[str, pa.Array]) -> None:
        report.summarise(stats)
        if self.gather_stats:
            report.columns.append(pa.table(dict(stats)))

    def _result(self, outcome: Outcome) -> pa.Table:
        """The columns to write."""
        with_stats = self.keep_stats or self.sink == "staged"
        table = outcome.batch.to_table(with_stats=with_stats)
        if not with_stats:
            table = table.drop_columns([name for name in (META_COLUMN, STATS_COLUMN) if name in table.column_names])
        if self.keep_hashes:
            for op, features in zip(self.fused.deciders, outcome.features, strict=True):
                for name in features.column_names if isinstance(op, Deduplicator) else ():
                    table = table.drop_columns([name]) if name in table.column_names else table
                    table = table.append_column(name, _readable(features.column(name)))
        return table


def blocks_of(source: ReadTask | InMemory | Staged, needs: Needs) -> Iterator[Block]:
    """The rows of a unit, block by block."""
    if isinstance(source, ReadTask):
        yield from read_task(source, needs)
    elif isinstance(source, Staged):
        yield from staged_blocks(source, needs)
    else:
        places = [Place("rows", number) for number in range(len(source.rows))]
        yield block_of_rows(source.rows, places, needs)


def _readable(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Hashes as JSON can hold them: bytes in hexadecimal."""
    if pa.types.is_fixed_size_binary(column.type) or pa.types.is_binary(column.type):
        return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.large_string())
    return column
