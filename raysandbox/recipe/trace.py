"""The tracer: a few rows before and after each operator, to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raysandbox.core.files import atomic_path
from raysandbox.ops.base import Operator
from raysandbox.ops.batch import Batch
from raysandbox.recipe.blocks import ROW_COLUMN, Block
from raysandbox.recipe.rows import Row, encode_row

__all__ = ["TraceSpec", "UnitTrace", "write_traces"]


@dataclass(frozen=True)
class TraceSpec:
    """What to trace.

    Attributes:
        rows: rows per operator, the first in input order.
        operators: names of the operators to trace; empty for all.
        fields: columns to show beside those that an operator reads or changes.
    """

    rows: int
    operators: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()

    def covers(self, op: Operator) -> bool:
        """Whether an operator is traced."""
        return not self.operators or op.type_name in self.operators


class UnitTrace:
    """The traced rows of one unit.

    Attributes:
        samples: for each operator of the segment what is shown of its rows.
    """

    def __init__(self, spec: TraceSpec, operators: Sequence[Operator]) -> None:
        self._spec = spec
        self.samples: list[list[Row]] = [[] for _ in operators]

    def mapped(self, index: int, op: Operator, block: Block, before: Batch, after: Batch) -> None:
        """Notes rows that a mapper changed, dropped or multiplied."""
        left = self._left(index, op)
        if not left or before.table is after.table:
            return
        columns = [name for name in after.table.column_names if _differs(name, before.table, after.table)]
        for position, rows in _changes(before.table, after.table, columns):
            old = before.table.select([n for n in columns if n in before.table.column_names])
            new = after.table.select(columns).take(pa.array(rows, pa.int64())).to_pylist()
            self.samples[index].append(
                {
                    **self._origin(block, before.table, position),
                    "original": old.slice(position, 1).to_pylist()[0],
                    "processed": new[0] if len(new) == 1 else new,
                }
            )
            if len(self.samples[index]) >= self._spec.rows:
                return

    def filtered(
        self, index: int, op: Operator, block: Block, batch: Batch, stats: Mapping[str, pa.Array], keep: np.ndarray
    ) -> None:
        """Notes rows that a filter dropped, with the statistics that it looked at."""
        keys = op.keys(batch.keys)
        shown = [name for kind, name in _columns_of(keys).items() if kind in op.reads]
        for position in np.flatnonzero(~keep)[: self._left(index, op)].tolist():
            found = batch.table.select([name for name in shown if name in batch.table.column_names])
            self.samples[index].append(
                {
                    **self._origin(block, batch.table, position),
                    "stats": {name: values[position].as_py() for name, values in stats.items()},
                    "row": found.slice(position, 1).to_pylist()[0] if found.num_columns else {},
                }
            )

    def _left(self, index: int, op: Operator) -> int:
        return max(0, self._spec.rows - len(self.samples[index])) if self._spec.covers(op) else 0

    def _origin(self, block: Block, table: pa.Table, position: int) -> Row:
        """Where a row came from, and the fields that are asked for."""
        fields = [name for name in self._spec.fields if name in table.column_names]
        extra = table.select(fields).slice(position, 1).to_pylist()[0] if fields else {}
        if ROW_COLUMN not in table.column_names:
            return extra
        place = block.places[table.column(ROW_COLUMN)[position].as_py()]
        return {"file": place.file, place.unit: place.line(), **extra}


def _columns_of(keys: Any) -> dict[str, str]:
    return {"text": keys.text, "image": keys.image, "video": keys.video, "audio": keys.audio}


def _differs(name: str, before: pa.Table, after: pa.Table) -> bool:
    return name not in before.column_names or not before.column(name).equals(after.column(name))


def _changes(before: pa.Table, after: pa.Table, columns: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
    """Positions of changed rows before a mapper, each with the positions of what became of it."""
    if ROW_COLUMN not in before.column_names or ROW_COLUMN not in after.column_names:
        return
    became: dict[int, list[int]] = {row: [] for row in before.column(ROW_COLUMN).to_pylist()}
    for position, row in enumerate(after.column(ROW_COLUMN).to_pylist()):
        became[row].append(position)
    known = [name for name in columns if name in before.column_names]
    fresh = len(known) < len(columns)
    for position, rows in enumerate(became.values()):
        if fresh or len(rows) != 1 or any(before[n][position] != after[n][rows[0]] for n in known):
            yield position, rows


def write_traces(folder: Path, operators: Sequence[Operator], samples: Sequence[Sequence[Row]]) -> None:
    """Writes one file of lines per operator that has something to show; earlier files go.

    Args:
        folder: where to; files are called NN-operator.jsonl, in the order of the recipe.
        operators: the recipe's operators.
        samples: what is shown of each.
    """
    for old in folder.glob("[0-9][0-9]-*.jsonl"):
        old.unlink()
    for number, (op, rows) in enumerate(zip(operators, samples, strict=True), 1):
        if rows:
            with atomic_path(folder / f"{number:02d}-{op.type_name}.jsonl") as temporary:
                temporary.write_bytes(b"".join(encode_row(row) + b"\n" for row in rows))
