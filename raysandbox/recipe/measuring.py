"""Statistics of a recipe's filters for rows that have something of their own to go along, such as a loss."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import cache_dir
from raysandbox.core.keys import DigestMemo
from raysandbox.core.progress import Progress
from raysandbox.ops.base import Filter, Mapper, Operator
from raysandbox.ops.batch import STATS_COLUMN, Batch
from raysandbox.ops.fields import field_array, field_list, number_array
from raysandbox.recipe.engines import engine_named
from raysandbox.recipe.execute import Run, staging_folder
from raysandbox.recipe.plan import choose_engine, plan_input
from raysandbox.recipe.prepare import load_recipe, quarantine_file, units_of, work_of
from raysandbox.recipe.schema import Recipe
from raysandbox.recipe.store import StatisticsStore

__all__ = ["Measurements", "measure"]

_CARRIED = "__carried__."
_NUMBER = "__number__"


@dataclass(frozen=True)
class Measurements:
    """Rows as the recipe's filters see them.

    Attributes:
        numbers: what goes along, as numbers; null where a row has none.
        filters: position in `process`, filter, its statistics of every row.
        computed: names of the filters whose statistics were computed, since the rows did not have them.
        left_out: operators that were not applied: they decide over all rows at once.
    """

    numbers: pa.Array
    filters: tuple[tuple[int, Filter, Mapping[str, pa.Array]], ...]
    computed: tuple[str, ...]
    left_out: tuple[str, ...]


class _Carrier(Filter):
    """Makes fields of rows statistics, which stay with their rows whatever mappers do."""

    type_name: ClassVar[str] = "carrier"
    reads: ClassVar[tuple[str, ...]] = ()

    number: str
    fields: tuple[str, ...] = ()

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the number and the fields; null where a row does not have one."""
        found = {_NUMBER: number_array(batch, self.number, lists=False).cast(pa.float64())}
        for name in self.fields:
            values = field_array(batch, name)
            found[_CARRIED + name] = pa.array(field_list(batch, name)) if values is None else values
        return found


def measure(
    raw: Mapping[str, Any],
    dataset_path: str,
    number_key: str,
    *,
    quarantine_dir: Path,
    progress: Progress | None = None,
    allow_user_code: bool = False,
    cache: bool = True,
    shared: Path | None = None,
) -> Measurements:
    """Statistics of every filter of a recipe over the rows of a data set, with nothing dropped.

    Statistics that the rows bring are taken, unless a mapper comes before the filter, or two filters
    have one of the same name. Others are computed, behind the mappers that the recipe has before them.

    Args:
        raw: the recipe; where it reads and writes does not count.
        dataset_path: file, folder or glob.
        number_key: field that goes along; levels separated by dots.
        quarantine_dir: folder for bad rows.
        progress: receives progress.
        allow_user_code: whether code that the recipe names may run.
        cache: whether statistics that earlier runs computed may be taken.
        shared: the cache that runs share; `~/.cache/raysandbox` by default.

    Raises:
        ConfigError: the recipe or the data set is wrong.
        BadRowsError: more rows are bad than `max_bad_rows` allows.
        JobFailed: the data set has no rows.
    """
    there = {key: value for key, value in raw.items() if key not in ("dataset_path", "export_path")}
    recipe, _ = load_recipe(
        {**there, "dataset": {"configs": [{"path": dataset_path}]}}, allow_user_code=allow_user_code
    )
    passes = _Passes(recipe, quarantine_dir, progress or Progress(), cache, shared or cache_dir())
    operators = recipe.operators()
    filters = [(index, op) for index, op in enumerate(operators) if isinstance(op, Filter)]
    fields = tuple(dict.fromkeys(f"{STATS_COLUMN}.{stat.key}" for _, op in filters for stat in op.statistics()))
    carrier = _Carrier.model_validate({"number": number_key, "fields": fields})
    table = passes.run([carrier, *(op for op in operators if isinstance(op, Mapper))], cache=False)
    found = {
        index: {stat.key: _column(table, f"{_CARRIED}{STATS_COLUMN}.{stat.key}") for stat in op.statistics()}
        for index, op in filters
        if index in _brought(operators, table)
    }
    missing = [index for index, _ in filters if index not in found]
    for group in _without_clashes(operators, missing):
        chosen = [op for index, op in enumerate(operators) if isinstance(op, Mapper) or index in group]
        own = passes.run([_Carrier.model_validate({"number": number_key}), *chosen], cache=cache)
        if own.num_rows != table.num_rows:
            raise JobFailed("some rows could not be measured by all filters: remove those that the quarantine lists")
        for index in group:
            op = operators[index]
            assert isinstance(op, Filter)
            found[index] = {stat.key: _column(own, stat.key) for stat in op.statistics()}
    return Measurements(
        _column(table, _NUMBER),
        tuple((index, op, found[index]) for index, op in filters),
        tuple(operators[index].type_name for index in missing),
        tuple(op.type_name for op in operators if not isinstance(op, Filter | Mapper)),
    )


@dataclass(frozen=True)
class _Passes:
    """Applies operators to the rows of a recipe and gathers statistics."""

    recipe: Recipe
    quarantine_dir: Path
    progress: Progress
    cache: bool
    shared: Path

    def run(self, operators: Sequence[Operator], *, cache: bool) -> pa.Table:
        """One column per statistic, one row per row, in input order."""
        plan = plan_input(self.recipe)
        work = work_of(self.recipe, operators, "nothing", analysis=True)
        memo = DigestMemo(self.shared / "digests")
        units = units_of(plan, memo if cache else None)
        if cache:
            work = work.recalling(StatisticsStore(self.shared / "statistics"), memo)
        work = work.with_known(units)
        engine = choose_engine(self.recipe.engine, plan.size, done=len(work.known) == len(units))
        quarantine = quarantine_file(Path(f"feedback-{uuid.uuid4().hex[:8]}"), self.quarantine_dir)
        run = Run(engine_named(engine, self.recipe.np), self.recipe.bad_row_budget(), quarantine, self.progress)
        with staging_folder(None) as staging:
            reports = run.run(replace(work, staging=staging, limit=run.unit_limit), units)
        tables = [table for report in reports for table in report.columns]
        if not tables:
            raise JobFailed("the data set with feedback has no rows")
        return pa.concat_tables(tables, promote_options="permissive")


def _brought(operators: Sequence[Operator], table: pa.Table) -> set[int]:
    """The filters whose statistics the rows bring."""
    keys = [stat.key for op in operators if isinstance(op, Filter) for stat in op.statistics()]
    found = set()
    for index, op in enumerate(operators):
        if isinstance(op, Mapper):
            break  # what rows bring was computed before it, as far as one can know
        if isinstance(op, Filter):
            own = [stat.key for stat in op.statistics()]
            columns = [table.column(f"{_CARRIED}{STATS_COLUMN}.{key}") for key in own]
            if all(keys.count(key) == 1 for key in own) and all(c.null_count < len(c) for c in columns):
                found.add(index)
    return found


def _without_clashes(operators: Sequence[Operator], indices: Sequence[int]) -> Iterator[set[int]]:
    """Groups of filters none of which has a statistic of the name of another's."""
    left = list(indices)
    while left:
        group: set[int] = set()
        taken: set[str] = set()
        for index in left:
            op = operators[index]
            names = {stat.key for stat in op.statistics()} if isinstance(op, Filter) else set()
            if not names & taken:
                group.add(index)
                taken |= names
        left = [index for index in left if index not in group]
        yield group


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
