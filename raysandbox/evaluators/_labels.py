"""Predicted and true values of rows, side by side: what `accuracy` and `mse` compare."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.runner import Scorers
from raysandbox.ops.batch import Batch
from raysandbox.ops.fields import field_list

__all__ = ["FieldReader", "Pairs", "paired_files", "read_pairs", "reported"]


@dataclass(frozen=True)
class Pairs:
    """The values of one predicted data set and of its truth, row by row.

    Attributes:
        path: the predicted data set.
        truth_path: where the true values stand; may be the same.
        predicted: the predicted values; None only where gaps are allowed.
        truth: as many true values.
    """

    path: str
    truth_path: str
    predicted: Sequence[Any]
    truth: Sequence[Any]


@dataclass(frozen=True)
class FieldReader:
    """A row scorer that reads fields, levels separated by dots: each as a column of JSON texts."""

    fields: tuple[str, ...]

    def load(self) -> None:
        """Nothing is needed."""

    def score(self, table: pa.Table, state: None) -> Mapping[str, pa.Array]:
        """Returns a column per field: the value of each row as JSON, null in rows when none of them has it."""
        batch = Batch.from_table(table)
        return {field: self._encoded(table.schema, field, field_list(batch, field)) for field in self.fields}

    def _encoded(self, schema: pa.Schema, field: str, values: Sequence[Any]) -> pa.Array:
        missing = json.dumps(None) if _is_there(schema, field) else None
        texts = [missing if value is None else json.dumps(value, default=str) for value in values]
        return pa.array(texts, pa.large_string())


def _is_there(schema: pa.Schema, field: str) -> bool:
    """Whether rows have a field, be it without a value; of values that have no common type it is not known."""
    head, *levels = field.split(".")
    if schema.get_field_index(head) < 0:
        return False
    kind = schema.field(head).type
    for level in levels:
        if not pa.types.is_struct(kind) or kind.get_field_index(level) < 0:
            return False
        kind = kind.field(level).type
    return True


def paired_files(predicted: str | list[str], truth: str | list[str] | None) -> list[tuple[str, str]]:
    """Each predicted data set with the one that holds its true values.

    Args:
        predicted: one path or several.
        truth: None when the predicted data sets hold the true values too; one path for all; or one
            path for each.

    Raises:
        UserError: the numbers of paths do not fit together, or there is none.
    """
    paths = [predicted] if isinstance(predicted, str) else predicted
    if not paths:
        raise UserError("predicted_dataset_path: the list is empty (name at least one data set)")
    if truth is None:
        return [(path, path) for path in paths]
    truths = [truth] if isinstance(truth, str) else truth
    if len(truths) not in (1, len(paths)):
        raise UserError(
            f"ground_truth_dataset_path names {len(truths)} data sets and predicted_dataset_path {len(paths)}: "
            f"name one for all, or one for each in the same order"
        )
    return list(zip(paths, truths * (len(paths) // len(truths)), strict=True))


def read_pairs(
    scorers: Scorers,
    files: Sequence[tuple[str, str]],
    predicted: tuple[str, str],
    truth: tuple[str, str],
    *,
    gaps: bool = False,
) -> Iterator[Pairs]:
    """Yields the values of each predicted data set with the true ones, matched by position.

    Args:
        scorers: reads the data sets.
        files: each predicted data set and the one with its true values.
        predicted: key of the configuration, and the field that it names.
        truth: the same of the true values.
        gaps: whether predicted values may be missing, as long as the data set has the field.

    Raises:
        UserError: a data set has no rows, both have different numbers of rows, or a row lacks its value.
    """
    known: dict[str, list[Any]] = {}  # one truth may serve many predictions
    for path, truth_path in files:
        if path == truth_path:
            values, true_values = _values(scorers, path, [(*predicted, gaps), (*truth, False)])
        else:
            (values,) = _values(scorers, path, [(*predicted, gaps)])
            if truth_path not in known:
                known = {truth_path: _values(scorers, truth_path, [(*truth, False)])[0]}
            true_values = known[truth_path]
        if len(values) != len(true_values):
            raise UserError(
                f"{path} has {len(values)} rows and {truth_path} has {len(true_values)}: rows are matched by "
                f"position, so the numbers must be equal (remove what processing added or dropped, or write the "
                f"truth into the same file)"
            )
        yield Pairs(path, truth_path, values, true_values)


def _values(scorers: Scorers, path: str, fields: Sequence[tuple[str, str, bool]]) -> list[list[Any]]:
    """The values of some fields of a data set.

    Args:
        scorers: reads it.
        path: the data set.
        fields: of each the key of the configuration, the field, and whether values may be missing.

    Raises:
        UserError: it has no rows, a row lacks a value, or all lack a field.
    """
    table = scorers.score(path, FieldReader(tuple(dict.fromkeys(field for _, field, _ in fields))))
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: there is nothing to compare")
    columns = []
    for key, field, gaps in fields:
        texts = table.column(field).to_pylist()
        values = [None if text is None else json.loads(text) for text in texts]
        lacking = [number for number, value in enumerate(values, start=1) if value is None]
        if lacking and not (gaps and any(text is not None for text in texts)):
            raise UserError(
                f"{path}: row {lacking[0]} has no value of '{field}' ({len(lacking)} of {len(texts)} rows have none): "
                f"complete the data, or set {key}"
            )
        columns.append(values)
    return columns


def reported(metric: str, values: Sequence[float | None], best: float) -> dict[str, float]:
    """What goes to the metrics: the best value, and that of each data set where there are several.

    Args:
        metric: its name.
        values: of each data set; None where there is none.
        best: of them.

    Raises:
        JobFailed: a value is not a finite number.
    """
    found = {f"{metric}.{index}": value for index, value in enumerate(values) if value is not None}
    if not all(map(math.isfinite, found.values())):
        raise JobFailed(f"the {metric} is not a finite number ({values}): look at the values in the data")
    return {metric: best, **(found if len(values) > 1 else {})}
