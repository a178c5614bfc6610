"""Rows of JSON lines for inference: read with their place, written with their answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import UserError
from raysandbox.core.files import atomic_path

__all__ = ["BadRow", "Row", "read_rows", "targets", "write_quarantine", "write_rows"]

_RAW_LIMIT = 2000  # characters of a bad row that quarantine keeps


@dataclass(frozen=True)
class Row:
    """A line of a file.

    Attributes:
        file: the file.
        line: 1-based number of the line.
        raw: its bytes.
    """

    file: Path
    line: int
    raw: bytes

    def data(self) -> dict[str, Any]:
        """The JSON object.

        Raises:
            ValueError: the line holds no JSON object, or is no UTF-8.
        """
        try:
            value = json.loads(self.raw)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value


@dataclass(frozen=True)
class BadRow:
    """A row without an answer."""

    row: Row
    reason: str

    def __str__(self) -> str:
        return f"{self.row.file}:{self.row.line}: {self.reason}"

    def record(self) -> dict[str, Any]:
        """What quarantine keeps of it."""
        raw = self.row.raw[: 4 * _RAW_LIMIT].decode("utf-8", "replace")[:_RAW_LIMIT]
        return {"file": str(self.row.file), "line": self.row.line, "reason": self.reason, "raw": raw}


def targets(dataset_path: str | Sequence[str], export_path: str) -> dict[Path, Path]:
    """Input files and where the rows of each are written: `{name}_inference.jsonl` in a folder.

    Raises:
        UserError: an input is no file, or two have one name.
    """
    found: dict[Path, Path] = {}
    for text in [dataset_path] if isinstance(dataset_path, str) else dataset_path:
        source = Path(text).expanduser()
        if not source.is_file():
            raise UserError(f"dataset_path: there is no file {source} (name one or several files of JSON lines)")
        target = Path(export_path).expanduser() / f"{source.stem}_inference.jsonl"
        if target in found.values():
            raise UserError(f"dataset_path: two inputs would be written to {target}: rename one of them")
        found[source] = target
    return found


def read_rows(file: Path) -> Iterator[Row]:
    """The lines of a file that are not blank."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield Row(file, number, line)


def write_rows(target: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines; the file appears whole."""
    with atomic_path(target) as temporary, temporary.open("wb") as output:
        for row in rows:
            output.write(_encoded(row) + b"\n")


def write_quarantine(target: Path, bad: Iterable[BadRow]) -> None:
    """Writes the bad rows, if there are any; those of an earlier run go."""
    records = [row.record() for row in bad]
    if records:
        write_rows(target, records)
    else:
        target.unlink(missing_ok=True)


def _encoded(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can write
        return json.dumps(row).encode()
