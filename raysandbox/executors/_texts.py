"""The texts of a data set, and what is said of rows without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from raysandbox.core.errors import UserError
from raysandbox.ops.batch import Batch
from raysandbox.ops.fields import field_list

__all__ = ["TextReader", "texts_of", "without_text"]

_SHOWN = 5


@dataclass(frozen=True)
class TextReader:
    """A row scorer that reads texts: column `text`, null where a row has none.

    Attributes:
        key: field of the text; levels separated by dots.
    """

    key: str

    def load(self) -> None:
        """Nothing is needed."""

    def score(self, table: pa.Table, state: None) -> Mapping[str, pa.Array]:
        """Returns the column.

        Raises:
            UserError: the field holds something else than text.
        """
        return {"text": pa.array(texts_of(table, self.key), pa.large_string())}


def texts_of(table: pa.Table, key: str) -> list[str | None]:
    """The texts of a field; None where a row has none, or only blanks.

    Raises:
        UserError: the field holds something else than text.
    """
    values = field_list(Batch.from_table(table), key)
    other = next((value for value in values if not isinstance(value, str | None)), None)
    if other is not None:
        raise UserError(f"'{key}' holds {type(other).__name__}, not text: set text_key")
    return [value if value and not value.isspace() else None for value in values]


def without_text(column: pa.ChunkedArray, path: str, key: str) -> str:
    """Says how many rows have no text, and which."""
    rows = [number for number, missing in enumerate(column.is_null().to_pylist(), start=1) if missing]
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", …" if len(rows) > _SHOWN else "")
    return f"{len(rows)} of {len(column)} rows of {path} have no text in '{key}' and are left out: row {shown}"
