"""Calls Data-Juicer's operators: from Arrow to its samples and back."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.ops.batch import JSON_TEXT, META_COLUMN, STATS_COLUMN
from raysandbox.ops.bridge_guard import guard

__all__ = ["installed", "kept", "kept_rows", "mapped", "operator", "rewritten", "statistics"]

_BATCH_META = "__dj__batch_meta__"
_POSITION = "__position__"
# What one row, or a parameter, can make an operator raise.
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)

Columns = dict[str, list[Any]]


def installed() -> bool:
    """Whether Data-Juicer can be imported."""
    return importlib.util.find_spec("data_juicer") is not None


@cache
def _data_juicer() -> Any:
    """The package `data_juicer.ops`, guarded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from data_juicer import ops

    guard()
    return ops


def operator(name: str, parameters: Mapping[str, Any], known_version: str) -> Any:
    """Makes an operator of Data-Juicer.

    Args:
        name: its name.
        parameters: its parameters.
        known_version: version of Data-Juicer that the table describes.

    Raises:
        JobFailed: another version is installed, a package of the operator is missing, or it refuses its parameters.
    """
    found = version("py-data-juicer")
    if found != known_version:
        raise JobFailed(
            f"operator {name} is that of Data-Juicer {known_version}, and {found} is installed: "
            "pip install 'raysandbox[datajuicer]'"
        )
    cls = _data_juicer().OPERATORS.modules[name]
    try:
        with _calling(name):
            return cls(**parameters)
    except _FAULTS as error:
        raise JobFailed(f"operator {name} of Data-Juicer cannot be set up: {type(error).__name__}: {error}") from error


@contextmanager
def _calling(name: str) -> Iterator[None]:
    """Tells faults of rows from those that no other row will mend; warnings are for its authors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, MemoryError, *_FAULTS):
        raise
    except ImportError as error:
        raise JobFailed(f"operator {name} of Data-Juicer: {error} (install the package)") from error
    except Exception as error:  # its packages have errors of their own: of OpenCV, of a service …
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def mapped(op: Any, table: pa.Table) -> pa.Table:
    """What a mapper or aggregator makes of rows."""
    columns = _columns(table)
    ops = _data_juicer()
    if op._name in ops.TAGGING_OPS.modules and META_COLUMN not in columns:
        columns[META_COLUMN] = [{} for _ in range(table.num_rows)]
    if isinstance(op, ops.Aggregator) and _BATCH_META not in columns:
        columns[_BATCH_META] = [{} for _ in range(table.num_rows)]
    with _calling(op._name):
        if not isinstance(op, ops.Aggregator) and op.is_batched_op():
            made = _concatenated([op.process_batched(_nested(chunk)) for chunk in _chunks(columns, op.batch_size)])
        else:
            made = _columns_of([_row(op.process_single(_nested(row))) for row in _rows(columns)])
    return _table(made, table)


def statistics(op: Any, table: pa.Table, keys: Sequence[str]) -> dict[str, pa.Array]:
    """A filter's statistics of rows; one that no row has is null."""
    found = _computed(op, _columns(table))[STATS_COLUMN]
    names = dict.fromkeys([*keys, *(name for row in found for name in row)])
    return {name: pa.array(_plain([row.get(name) for row in found])) for name in names}


def kept(op: Any, stats: Mapping[str, pa.Array]) -> np.ndarray:
    """A filter's decision by the statistics alone."""
    return _decided(op, {STATS_COLUMN: list(_rows({name: values.to_pylist() for name, values in stats.items()}))})


def kept_rows(op: Any, table: pa.Table) -> np.ndarray:
    """The decision of a filter that looks at the rows themselves."""
    columns = _columns(table)
    if META_COLUMN not in columns:
        columns[META_COLUMN] = [{} for _ in range(table.num_rows)]
    return _decided(op, _computed(op, columns))


def _computed(op: Any, columns: Columns) -> Columns:
    """The rows with a filter's statistics; those of other filters are not shown to it."""
    columns[STATS_COLUMN] = [{} for _ in next(iter(columns.values()))]
    with _calling(op._name):
        if op.is_batched_op():
            return _concatenated(
                [op.compute_stats_batched(_nested(chunk)) for chunk in _chunks(columns, op.batch_size)]
            )
        return _columns_of([op.compute_stats_single(_nested(row)) for row in _rows(columns)])


def _decided(op: Any, columns: Columns) -> np.ndarray:
    with _calling(op._name):
        if op.is_batched_op():
            return np.array(list(op.process_batched(_nested(columns))), dtype=bool)
        return np.array([op.process_single(_nested(row)) for row in _rows(columns)], dtype=bool)


def rewritten(op: Any, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a deduplicator, selector or grouper makes of all rows.

    Raises:
        JobFailed: it fails; it cannot be known on which row.
    """
    from data_juicer.core.data import NestedDataset

    if not rows:
        return []
    # None, since with any number `datasets` forks this process: a fork of a process with Ray's threads
    # may hang, and cuts the parent off from its raylet.
    op.auto_op_parallelism, op.num_proc = False, None
    regroups = isinstance(op, _data_juicer().Grouper)
    numbered = rows if regroups else [{**row, _POSITION: position} for position, row in enumerate(rows)]
    try:
        with _calling(op._name), _quiet():
            dataset = NestedDataset.from_list(list(numbered))
            seen = dataset.to_list()
            made = op.run(dataset).to_list()
    except _FAULTS as error:
        raise JobFailed(f"operator {op._name} of Data-Juicer: {type(error).__name__}: {error}") from error
    return made if regroups else [_written_back(row, rows, seen) for row in made]


def _written_back(
    row: dict[str, Any], rows: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A row with what the operator changed, and everything else as it was before Arrow gave columns one type."""
    position = row.pop(_POSITION)
    old, shown = rows[position], seen[position]
    result = {key: value for key, value in old.items() if key in row}
    changed = {key: value for key, value in row.items() if key not in shown or value != shown[key]}
    return {**result, **changed}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and cache files of `datasets`."""
    import datasets

    bars, caching = datasets.are_progress_bars_disabled(), datasets.is_caching_enabled()
    datasets.disable_progress_bars()
    datasets.disable_caching()
    try:
        yield
    finally:
        if not bars:
            datasets.enable_progress_bars()
        if caching:
            datasets.enable_caching()


def _row(result: Any) -> Mapping[str, Any]:
    """What an operator makes of one row; some return an empty list for a row that has not what they read."""
    if not isinstance(result, dict):
        raise ValueError(f"the operator made {result!r} of the row")
    return result


def _nested(sample: Mapping[str, Any]) -> Any:
    """A sample as Data-Juicer hands it out: "meta.date" reaches into it."""
    from data_juicer.core.data.dj_dataset import NestedQueryDict

    return NestedQueryDict(sample)


def _columns(table: pa.Table) -> Columns:
    """The rows as Python values; columns of JSON texts as what they say."""
    columns = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        values = column.to_pylist()
        if field.metadata == JSON_TEXT:
            values = [None if value is None else json.loads(value) for value in values]
        columns[field.name] = values
    return columns


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _chunks(columns: Columns, size: int) -> Iterator[Columns]:
    rows = len(next(iter(columns.values())))
    return ({name: values[start : start + size] for name, values in columns.items()} for start in range(0, rows, size))


def _concatenated(parts: Sequence[Mapping[str, Any]]) -> Columns:
    if len(parts) == 1:
        return {name: list(values) for name, values in parts[0].items()}
    names = dict.fromkeys(name for part in parts for name in part)
    lengths = [len(next(iter(part.values()), ())) for part in parts]
    return {
        name: [value for part, length in zip(parts, lengths, strict=True) for value in part.get(name, [None] * length)]
        for name in names
    }


def _table(columns: Columns, before: pa.Table) -> pa.Table:
    """Arrow columns of what an operator made; a column that it left alone stays as it is."""
    shown = _columns(before)
    made = {}
    for name, values in columns.items():
        values = _plain(values)
        if name in shown and values == shown[name]:
            made[name] = before.field(name), before.column(name)
        else:
            made[name] = _column(name, values, before)
    if not made:
        return before.slice(0, 0)
    return pa.Table.from_arrays([array for _, array in made.values()], schema=pa.schema([f for f, _ in made.values()]))


def _column(name: str, values: list[Any], before: pa.Table) -> tuple[pa.Field, pa.Array]:
    """A column of new values: of the old type where they fit it, except that a struct may get new fields."""
    old = before.field(name) if name in before.column_names else None
    if old is not None and not pa.types.is_nested(old.type) and old.metadata != JSON_TEXT:
        try:
            return old, pa.array(values, old.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            pass  # another type than before
    array = pa.array(values)
    return pa.field(name, array.type), array


def _plain(values: list[Any]) -> list[Any]:
    """Lists and numbers of Python in place of NumPy's and PyTorch's, as `datasets` does for Data-Juicer."""
    from datasets.features.features import cast_to_python_objects

    return cast_to_python_objects(values, only_1d_for_numpy=False)
