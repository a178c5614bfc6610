"""Batch operators one after the other on one block, and the search for the rows that one fails on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from raysandbox.core.keys import digest
from raysandbox.core.scope import kept
from raysandbox.ops.base import DatasetOperator, Filter, Mapper, Operator, Rewriter
from raysandbox.ops.batch import ROW_TIMEOUT_S, Batch, FieldKeys, FrameRequest, RowFaults
from raysandbox.recipe.blocks import ROW_COLUMN, BadRow, Block, Needs, Place, bad_row
from raysandbox.recipe.recall import Recall, numbered
from raysandbox.recipe.trace import UnitTrace

__all__ = ["Companions", "FusedOps", "Outcome", "Tally", "needs_of"]

# What one row can make an operator raise. Others (a missing package, no memory, a user error) say
# that something else is wrong and pass through.
ROW_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pa.ArrowException,
)

_FEATURE = "__feature__"
_ROWS_AT_ONCE = {"video": 8, "image": 64}  # rows whose decoded frames and images are in memory together


class _State:
    """What an operator loads, when it is first asked for: a run that finds its statistics needs none."""

    def __init__(self, op: Operator) -> None:
        self._op = op
        self._loaded: list[Any] = []

    def get(self) -> Any:
        """The state."""
        if not self._loaded:
            self._loaded.append(self._op.load())
        return self._loaded[0]


@dataclass
class Tally:
    """What one operator did so far."""

    name: str
    rows_in: int = 0
    rows_out: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Adds what the operator did elsewhere."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.failed += other.failed
        self.seconds += other.seconds


@dataclass
class Outcome:
    """What became of one block.

    Attributes:
        batch: the rows that are left, with their statistics.
        features: per dataset operator of the segment the columns it decides on, one value per row.
        bad: the rows that an operator failed on.
        every: the rows that filters dropped among those that are left, where they were computed too.
        kept: which rows of `every` are left, bool.
    """

    batch: Batch
    features: list[pa.Table]
    bad: list[BadRow]
    every: Outcome | None = None
    kept: np.ndarray | None = None


@dataclass(frozen=True)
class Companions:
    """What goes along with all blocks of a unit.

    Attributes:
        tallies: one per operator, added to.
        limit: how many bad rows of a block end the search for more, None for no limit.
        recall: knows what earlier runs computed, and learns what this one does.
        trace: notes rows before and after.
        wide: operators compute also the rows that filters drop, for later runs with other thresholds.
    """

    tallies: Sequence[Tally]
    limit: int | None = None
    recall: Recall | None = None
    trace: UnitTrace | None = None
    wide: bool = False


@dataclass(frozen=True)
class FusedOps:
    """A run of operators that is applied to a block without leaving the process.

    Attributes:
        ops: mappers and filters.
        deciders: dataset operators whose features are computed after them.
        keys: the recipe's column names.
        keep_all: compute the filters' statistics and drop nothing (analysis).
        row_timeout_s: seconds that decoding one media file may take.
        token: names the run: what its operators loaded serves no other one, since files may have changed.
    """

    ops: tuple[Operator, ...]
    deciders: tuple[DatasetOperator, ...] = ()
    keys: FieldKeys = field(default_factory=FieldKeys)
    keep_all: bool = False
    row_timeout_s: float = ROW_TIMEOUT_S
    token: str = ""

    @property
    def operators(self) -> tuple[Operator, ...]:
        """All operators, in order."""
        return (*self.ops, *self.deciders)

    @property
    def can_be_wide(self) -> bool:
        """Whether the rows that filters drop can go on with the others: at little cost, and with no effect on them."""
        filtering = False
        for op in self.operators:
            filtering |= not isinstance(op, Mapper)
            costly = op.resources() is not None or any(kind in _ROWS_AT_ONCE or kind == "audio" for kind in op.reads)
            if costly or "stats" in op.reads or (filtering and isinstance(op, Mapper)):
                return False
        return filtering and not self.keep_all

    def tallies(self) -> list[Tally]:
        """An empty tally for each operator."""
        return [Tally(op.type_name) for op in self.operators]

    def _states(self) -> list[_State]:
        """The operators' states; loaded once per process and job when first needed, kept until other operators come."""
        states: dict[str, list[_State]] = kept("states of operators")
        if self._key not in states:
            states.clear()
            states[self._key] = [_State(op) for op in self.operators]
        return states[self._key]

    @cached_property
    def _key(self) -> str:
        return digest([self.token, *([op.type_name, op.model_dump(mode="json")] for op in self.operators)])

    def run(self, block: Block, unit: Companions) -> Outcome:
        """Applies the operators to a block; a row that one fails on is set aside, the others go on.

        Args:
            block: the rows.
            unit: what goes along with all blocks of a unit.
        """
        whole = replace(Batch.from_table(block.table, self.keys), row_timeout_s=self.row_timeout_s)
        outcomes = [self._run(block, piece, unit) for piece in self._pieces(whole)]
        return outcomes[0] if len(outcomes) == 1 else _joined(outcomes)

    def _pieces(self, batch: Batch) -> Iterator[Batch]:
        """The rows that share views at once: few where each holds decoded media."""
        kinds = {kind for op in self.operators for kind in op.reads}
        most = min((_ROWS_AT_ONCE[kind] for kind in kinds if kind in _ROWS_AT_ONCE), default=batch.num_rows)
        if batch.num_rows <= most:
            yield batch
            return
        for start in range(0, batch.num_rows, most):
            stats = {name: values.slice(start, most) for name, values in batch.stats.items()}
            yield replace(batch, table=batch.table.slice(start, most), stats=stats, _views={})

    def _run(self, block: Block, batch: Batch, unit: Companions) -> Outcome:
        bad = list[BadRow]()
        requests = self._requests()
        alive: np.ndarray | None = None  # by a row's number in the block, where filters drop none
        for index, (op, tally) in enumerate(zip(self.operators, unit.tallies, strict=True)):
            if batch.num_rows == 0:
                break
            started = time.perf_counter()
            batch = replace(batch, requests=requests[index])
            if unit.wide and alive is None and not isinstance(op, Mapper) and numbered(batch.table):
                alive = np.ones(len(block.places), dtype=bool)
            rows_in = int(_left(batch, alive).sum())
            attempt = _Attempt(partial(self._apply, index, block, unit, alive), unit.limit if alive is None else None)
            result = attempt.run(batch)
            failures = [failure for failure in attempt.failures if _left(failure[0], alive).all()]
            bad += [_bad_row(block, faulty, op, reason) for faulty, reason in failures]
            tally.rows_in += rows_in
            tally.rows_out += int(_left(result, alive).sum())
            tally.failed += len(failures)
            tally.seconds += time.perf_counter() - started
            batch = result
            if unit.recall is not None and isinstance(op, Mapper) and not numbered(batch.table):
                # Filters may leave one row of each number: no longer the one that another run leaves.
                unit.recall.give_up_rows()
                unit = replace(unit, recall=None)
        if alive is None:
            return Outcome(*self._split_features(batch), bad)
        kept = _left(batch, alive)
        every = Outcome(*self._split_features(batch), [])
        return Outcome(*self._split_features(batch.select(kept)), bad, every, kept)

    def _requests(self) -> list[frozenset[FrameRequest]]:
        """For each operator the frames that it and those after it will ask of the same files."""
        wanted: list[frozenset[FrameRequest]] = []
        later: frozenset[FrameRequest] = frozenset()
        for op in reversed(self.operators):
            later = frozenset(op.frame_requests()) | (frozenset() if op.changes_media else later)
            wanted.append(later)
        return wanted[::-1]

    def _apply(self, index: int, block: Block, unit: Companions, alive: np.ndarray | None, batch: Batch) -> Batch:
        op, state = self.operators[index], self._states()[index]
        keys = op.keys(self.keys)
        view = batch if keys == self.keys else batch.with_keys(keys)
        compute = _computed if unit.recall is None else partial(unit.recall.compute, index)
        if isinstance(op, Mapper):
            mapped = op.process(view, state.get())
            if unit.trace is not None:
                unit.trace.mapped(index, op, block, batch, mapped)
            return mapped if view is batch else mapped.with_keys(self.keys)
        if isinstance(op, DatasetOperator):
            # Kept among the statistics, so that they lose the rows that a later operator fails on.
            features = compute(op, view, lambda rows: op.features(rows, state.get()))
            return batch.with_stats({f"{_FEATURE}{index}.{name}": values for name, values in features.items()})
        if not isinstance(op, Filter):
            raise TypeError(f"{op.type_name} is neither a mapper nor a filter nor a dataset operator")
        stats = compute(op, view, lambda rows: op.compute(rows, state.get()))
        batch = batch.with_stats(stats)
        if self.keep_all:
            return batch
        keep = op.keep(stats)
        if alive is not None:
            alive[_numbers(batch)[~keep]] = False
            return batch
        if unit.trace is not None:
            unit.trace.filtered(index, op, block, batch, stats, keep)
        return batch.select(keep)

    def _split_features(self, batch: Batch) -> tuple[Batch, list[pa.Table]]:
        tables = []
        for index in range(len(self.ops), len(self.operators)):
            prefix = f"{_FEATURE}{index}."
            columns = {name.removeprefix(prefix): v for name, v in batch.stats.items() if name.startswith(prefix)}
            tables.append(pa.table(columns))
        stats = {name: values for name, values in batch.stats.items() if not name.startswith(_FEATURE)}
        return replace(batch, stats=stats), tables


# From an operator, its rows and the function that computes its columns, to these columns.
_Compute = Callable[[Operator, Batch, Callable[[Batch], Mapping[str, pa.Array]]], Mapping[str, pa.Array]]


def _computed(op: Operator, batch: Batch, make: Callable[[Batch], Mapping[str, pa.Array]]) -> Mapping[str, pa.Array]:
    return make(batch)


class _Attempt:
    """One operator on one batch: halves the batch until the rows that fail stand alone."""

    def __init__(self, apply: Callable[[Batch], Batch], limit: int | None) -> None:
        self._apply = apply
        self._limit = limit
        self.failures: list[tuple[Batch, str]] = []

    def run(self, batch: Batch) -> Batch:
        """The result for the rows that do not fail."""
        results = self._halve(batch)
        if len(results) == 1:
            return results[0]
        return _concat(results) if results else batch.select(np.zeros(batch.num_rows, dtype=bool))

    def _halve(self, batch: Batch) -> list[Batch]:
        if self._limit is not None and len(self.failures) > self._limit:
            return []
        try:
            return [self._apply(batch)]
        except RowFaults as faults:
            good = np.ones(batch.num_rows, dtype=bool)
            for row, reason in sorted(faults.faults.items()):
                good[row] = False
                self.failures.append((batch.select(np.arange(batch.num_rows) == row), reason))
            return self._halve(batch.select(good)) if good.any() else []
        except ROW_ERRORS as error:
            if batch.num_rows == 1:
                self.failures.append((batch, f"{type(error).__name__}: {error}"))
                return []
        first = np.arange(batch.num_rows) < batch.num_rows // 2
        return [*self._halve(batch.select(first)), *self._halve(batch.select(~first))]


def _concat(batches: Sequence[Batch]) -> Batch:
    table = _concat_tables(batch.table for batch in batches)
    stats = _concat_tables(pa.table(dict(batch.stats)) for batch in batches)
    columns = {name: stats.column(name).combine_chunks() for name in stats.column_names}
    return Batch(table, batches[0].keys, columns)


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of the pieces of a block."""
    filled = [outcome for outcome in outcomes if outcome.batch.num_rows] or outcomes[:1]
    features = [_concat_tables(tables) for tables in zip(*(outcome.features for outcome in filled), strict=True)]
    return Outcome(_concat([outcome.batch for outcome in filled]), features, [b for o in outcomes for b in o.bad])


def _concat_tables(tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="permissive")


def _numbers(batch: Batch) -> np.ndarray:
    """The rows' numbers in their block."""
    return batch.table.column(ROW_COLUMN).to_numpy()


def _left(batch: Batch, alive: np.ndarray | None) -> np.ndarray:
    """Which rows no filter has dropped; bool, one per row."""
    return np.ones(batch.num_rows, dtype=bool) if alive is None else alive[_numbers(batch)]


def _bad_row(block: Block, row: Batch, op: Operator, reason: str) -> BadRow:
    if ROW_COLUMN not in row.table.column_names:  # a mapper made rows of its own
        return bad_row(Place(block.places[0].file, 0), reason, row.table.to_pylist()[0], op.type_name)
    index = row.table.column(ROW_COLUMN)[0].as_py()
    raw = block.table.slice(index, 1).to_pylist()[0] if block.rows is None else block.rows[index]
    return bad_row(block.places[index], reason, raw, op.type_name)


def needs_of(ops: Iterable[Operator], keys: FieldKeys) -> Needs:
    """What operators need of every row, up to one that makes other rows of all."""
    texts: dict[str, None] = {}
    columns: dict[str, pa.DataType] = {}
    suffix = False
    for op in ops:
        own = op.keys(keys)
        media = {"image": own.image, "video": own.video, "audio": own.audio}
        if "text" in op.reads:
            texts[own.text] = None
        columns |= {media[kind]: pa.list_(pa.large_string()) for kind in op.reads if kind in media}
        suffix |= "suffix" in op.reads
        if isinstance(op, Rewriter):
            break
    return Needs(tuple(texts), columns, (keys.image, keys.video, keys.audio), suffix)
