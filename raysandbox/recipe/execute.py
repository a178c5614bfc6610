"""Runs a recipe's segments on an engine: decisions, counts and the budget of bad rows."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysandbox.core.disk import writes
from raysandbox.core.errors import BadRowsError, JobFailed
from raysandbox.core.files import atomic_path, remove
from raysandbox.core.progress import Progress
from raysandbox.ops.base import Deduplicator, Rewriter
from raysandbox.recipe.blocks import Needs, output_rows
from raysandbox.recipe.engines import Engine
from raysandbox.recipe.fused import FusedOps, Tally, needs_of
from raysandbox.recipe.parts import SHOWN_BAD_ROWS, InMemory, Staged, StatSum, Unit, UnitReport, UnitWork, rows_at
from raysandbox.recipe.plan import Segment, operator_seed
from raysandbox.recipe.rows import Row
from raysandbox.recipe.trace import TraceSpec
from raysandbox.recipe.units import Work, blocks_of
from raysandbox.runtime.telemetry import count

__all__ = ["Run", "staging_folder", "sum_stats"]

_NOTHING = Segment((), ())  # follows the last decision


@dataclass
class Run:
    """One recipe on its way through an engine; collects what the units report.

    Args:
        engine: where units run.
        budget: the most bad rows: a number, a fraction below 1, or None.
        quarantine: file for the bad rows, None to keep none.
        progress: told how far the work is, in bytes of input.
    """

    engine: Engine
    budget: int | float | None
    quarantine: Path | None
    progress: Progress
    rows_in: int = 0
    bad: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    first_bad: list[str] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    quarantined: list[Path] = field(default_factory=list)
    recalled: int = 0
    damaged: int = 0
    samples: list[list[Row]] = field(default_factory=list)
    _has_quarantine: bool = False

    @property
    def unit_limit(self) -> int | None:
        """Bad rows of one unit that exceed the budget whatever the others hold."""
        return self.budget if isinstance(self.budget, int) else None

    def segments(self, segments: Sequence[Segment], work: Work, units: Sequence[Unit], seed: int) -> list[UnitReport]:
        """Runs every segment; returns the reports of the last one, without the counts.

        Raises:
            BadRowsError: more rows are bad than the budget allows.
        """
        position = 0
        for index, segment in enumerate(segments[:-1]):
            if segments[index + 1 :] == [_NOTHING] and _drops_in_place(segment, work):
                return self._last_decision(index, segment, work, units, position, seed)
            reports = self._segment(index, segment, replace(work, sink="staged"), units)
            position += len(segment.ops)
            if isinstance(segment.deciders[0], Rewriter):
                units = self._rewrite(segment.deciders[0], units, reports)
                later = [op for each in segments[index + 1 :] for op in (*each.ops, *each.deciders)]
                work = replace(work, needs=needs_of(later, work.fused.keys))
            else:
                keep = self._decide(segment, reports, position, seed, work.trace)
                units = _staged_units(units, reports, keep)
            position += len(segment.deciders)
            remove(work.staging / str(index - 1))
        return self._segment(len(segments) - 1, segments[-1], work, units)

    def _last_decision(
        self, index: int, segment: Segment, work: Work, units: Sequence[Unit], position: int, seed: int
    ) -> list[UnitReport]:
        """A pass with nothing after its decision: rows are written in their last form, then some are dropped."""
        reports = self._segment(index, segment, replace(work, gather_stats=True), units)
        keep = self._decide(segment, reports, position + len(segment.ops), seed, work.trace)
        start = 0
        for report in reports:
            end = start + report.rows_out
            report.select(keep[start:end])
            start = end
        return reports

    def _segment(self, index: int, segment: Segment, work: Work, units: Sequence[Unit]) -> list[UnitReport]:
        staging = work.staging / str(index)
        staging.mkdir()
        fused = replace(work.fused, ops=segment.ops, deciders=segment.deciders)
        validators = work.validators if index == 0 else ()  # rows are looked at when they are read
        work = replace(work, fused=fused, staging=staging, validators=validators)
        reports = self.run(work, units, first=index == 0)
        self.tallies += _sum_tallies(fused, reports)
        if work.trace is not None:
            self.samples += _first_samples(len(fused.operators), reports, work.trace.rows)
        return reports

    def run(self, work: UnitWork, units: Sequence[Unit], *, first: bool = True) -> list[UnitReport]:
        """Runs one pass over all units."""
        sizes = [unit.source.size for unit in units]
        self.progress.begin("reading and processing" if first else "processing on", sum(sizes), "bytes")
        reports = []
        try:
            for size, report in zip(sizes, self.engine.run(work, units), strict=True):
                reports.append(report)
                self._count(report, first)
                self.progress.advance(size)
        finally:
            self.progress.end()
            self._write_quarantine()
        self._check_budget(complete=True)
        return reports

    def _count(self, report: UnitReport, first: bool) -> None:
        self.rows_in += report.rows_in if first else 0
        self.bad += report.bad
        self.missing.update(report.missing)
        self.recalled += report.recalled
        self.damaged += report.damaged
        self.first_bad += report.first_bad[: SHOWN_BAD_ROWS - len(self.first_bad)]
        if report.quarantine is not None:
            self.quarantined.append(report.quarantine)
        count("rows", report.rows_in if first else 0)
        count("cache_hits", report.recalled, "statistic")
        for tally in report.tallies:
            count("operator_rows", tally.rows_in, tally.name)
            count("operator_seconds", tally.seconds, tally.name)
        self._check_budget(complete=False)

    def _check_budget(self, *, complete: bool) -> None:
        """A fraction can only be judged at the end."""
        if self.budget is None or not self.bad:
            return
        if isinstance(self.budget, int):
            exceeded = self.bad > self.budget
        else:
            exceeded = complete and self.bad > self.budget * self.rows_in
        if exceeded:
            shown = "".join(f"\n  {row}" for row in self.first_bad)
            where = f"; all that were met are in {self.quarantine}" if self.quarantine else ""
            raise BadRowsError(
                f"{self.bad} bad rows so far, max_bad_rows allows {self.budget}:{shown}\n"
                f"(mend the rows, or set max_bad_rows{where})"
            )

    def _write_quarantine(self) -> None:
        """Adds the bad rows of a pass to those of the passes before."""
        if self.quarantine is None:
            return
        if not self.quarantined:
            if not self._has_quarantine:
                self.quarantine.unlink(missing_ok=True)  # of an earlier run
            return
        before = [self.quarantine] if self._has_quarantine else []
        with atomic_path(self.quarantine) as temporary, temporary.open("wb") as output:
            for part in [*before, *self.quarantined]:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, output)
        self._has_quarantine = True
        self.quarantined.clear()

    def _decide(
        self, segment: Segment, reports: Sequence[UnitReport], position: int, seed: int, trace: TraceSpec | None
    ) -> np.ndarray:
        """Which of the segment's rows the dataset operators keep, one after the other."""
        total = sum(report.rows_out for report in reports)
        keep = np.ones(total, dtype=bool)
        tallies = self.tallies[-len(segment.deciders) :]
        for index, (op, tally) in enumerate(zip(segment.deciders, tallies, strict=True)):
            features = _gather([table for report in reports for table in report.features[index]], op.type_name)
            left = int(keep.sum())
            if features.num_columns and left < total:
                features = features.filter(pa.array(keep))
            verdict = op.decide(features, left, operator_seed(seed, position + index))
            if trace is not None and isinstance(op, Deduplicator) and trace.covers(op):
                pairs = _first_pairs(op.originals(features, left), trace.rows)
                self.samples[index - len(segment.deciders)] = _shown_pairs(reports, np.flatnonzero(keep)[pairs])
            tally.rows_in, tally.rows_out = left, int(verdict.sum())
            keep[keep] = verdict
        return keep

    def _rewrite(self, op: Rewriter, units: Sequence[Unit], reports: Sequence[UnitReport]) -> list[Unit]:
        """What an operator makes of all rows, in as many pieces as these came."""
        every = np.ones(sum(report.rows_out for report in reports), dtype=bool)
        blocks = [block for unit in _staged_units(units, reports, every) for block in blocks_of(unit.source, Needs())]
        old = [row for block in blocks for row in output_rows(block, block.table)]
        started = time.perf_counter()
        new = op.rewrite(old)
        tally = self.tallies[-1]
        tally.rows_in, tally.rows_out, tally.seconds = len(old), len(new), time.perf_counter() - started
        edges = np.linspace(0, len(new), len(units) + 1).astype(int).tolist()
        pieces = zip(units, edges, edges[1:], strict=False)
        return [Unit(unit.index, InMemory(new[start:end], unit.source.size)) for unit, start, end in pieces]


def _drops_in_place(segment: Segment, work: Work) -> bool:
    """Whether rows that are dropped leave no trace: the types of Parquet columns are found from all rows."""
    return work.sink in ("lines", "memory") and not isinstance(segment.deciders[0], Rewriter)


def _gather(tables: Sequence[pa.Table], operator: str) -> pa.Table:
    if not tables:
        return pa.table({})
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise JobFailed(f"{operator}: the values that it compares have no common type: {error}") from error


def _sum_tallies(fused: FusedOps, reports: Sequence[UnitReport]) -> list[Tally]:
    sums = fused.tallies()
    for report in reports:
        for total, tally in zip(sums, report.tallies, strict=True):
            total.add(tally)
    return sums


def _first_samples(operators: int, reports: Sequence[UnitReport], most: int) -> list[list[Row]]:
    """What the tracer shows of each operator: the first rows in input order."""
    return [[row for report in reports for row in report.samples[index]][:most] for index in range(operators)]


def _first_pairs(originals: np.ndarray, most: int) -> np.ndarray:
    """The first rows that are dropped, each after the row that it repeats; int64 of shape (n, 2)."""
    dropped = np.flatnonzero(originals != np.arange(len(originals)))[:most]
    return np.stack((originals[dropped], dropped), axis=1)


def _shown_pairs(reports: Sequence[UnitReport], pairs: np.ndarray) -> list[Row]:
    """What the tracer shows of duplicates; `pairs` counts rows over all units."""
    rows = rows_at(reports, set(pairs.ravel().tolist()))
    return [{"kept": rows[kept], "dropped": rows[dropped]} for kept, dropped in pairs.tolist()]


def _staged_units(units: Sequence[Unit], reports: Sequence[UnitReport], keep: np.ndarray) -> list[Unit]:
    staged, start = [], 0
    for unit, report in zip(units, reports, strict=True):
        part = Staged(tuple(report.parts), keep[start : start + report.rows_out], unit.source.size)
        staged.append(Unit(unit.index, part))
        start += report.rows_out
    return staged


def sum_stats(reports: Sequence[UnitReport]) -> dict[str, StatSum]:
    """Summaries of every statistic over all units."""
    sums: dict[str, StatSum] = {}
    for report in reports:
        for name, part in report.stats.items():
            sums.setdefault(name, StatSum()).add(part)
    return sums


@contextlib.contextmanager
def staging_folder(target: Path | None) -> Iterator[Path]:
    """A folder for parts, removed at the end: beside the output, so that it can be renamed there."""
    if target is None:
        with writes(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="raysandbox-") as folder:
            yield Path(folder)
        return
    folder = target.parent / f".tmp-{target.name}-{uuid.uuid4().hex[:8]}"
    try:
        with writes(target):
            folder.mkdir(parents=True)
            yield folder
    finally:
        remove(folder)
