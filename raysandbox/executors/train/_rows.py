"""Reads a training set into columns: JSON lines, JSON arrays, Parquet, or a folder of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from raysandbox.core.errors import JobFailed

__all__ = ["read_columns"]

_SUFFIXES = (".jsonl", ".json", ".parquet")
# Statistics and metadata of a recipe: no training reads them, and their types vary from row to row.
_RECIPE_PREFIX = "__dj__"


def read_columns(path: Path, key_remapping: Mapping[str, str], field: str) -> pa.Table:
    """Reads the rows of a data set with the columns named as the trainer expects them.

    Args:
        path: file or folder.
        key_remapping: old to new column names; the old ones must exist.
        field: configuration key that holds the path, for messages.

    Raises:
        JobFailed: the data set is missing, empty, unreadable or lacks a column.
    """
    tables = [_read_file(file, field) for file in _files(path, field)]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise JobFailed(f"{field}: the files of {path} have different columns: {error}") from error
    if table.num_rows == 0:
        raise JobFailed(f"{field}: {path} holds no rows to train on")
    table = table.select([name for name in table.column_names if not name.startswith(_RECIPE_PREFIX)])
    missing = [name for name in key_remapping if name not in table.column_names]
    if missing:
        raise JobFailed(
            f"{field}: {path} has no column '{missing[0]}', which key_remapping names; "
            f"its columns are {', '.join(table.column_names)}"
        )
    for name in key_remapping:
        if table[name].null_count:
            raise JobFailed(f"{field}: {table[name].null_count} rows of {path} have no value in the column '{name}'")
    replaced = set(key_remapping.values()) - set(key_remapping)
    table = table.select([name for name in table.column_names if name not in replaced])
    return table.rename_columns([key_remapping.get(name, name) for name in table.column_names])


def _files(path: Path, field: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise JobFailed(f"{field}: {path} does not exist")
    found = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    found = [file for file in found if not file.name.startswith((".", "_"))]
    if not found:
        raise JobFailed(f"{field}: the folder {path} holds no {', '.join(_SUFFIXES)} file")
    return found


def _read_file(path: Path, field: str) -> pa.Table:
    if path.suffix == ".parquet":
        try:
            return pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise JobFailed(f"{field}: {path} is no Parquet file: {error}") from error
    if path.suffix not in _SUFFIXES:
        raise JobFailed(f"{field}: {path} is none of {', '.join(_SUFFIXES)}")
    return _to_table(path, list(_json_rows(path, field)), field)


def _json_rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            if number == 1 and line.lstrip().startswith(b"["):
                yield from _json_array(path, field)
                return
            yield _json_object(line, f"{field}: {path}:{number}")


def _json_array(path: Path, field: str) -> list[dict[str, Any]]:
    try:
        rows = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise JobFailed(f"{field}: {path} is not a JSON array: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise JobFailed(f"{field}: {path} is an array of something else than objects")
    return rows


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise JobFailed(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise JobFailed(f"{where}: not a JSON object")
    return row


def _to_table(path: Path, rows: list[dict[str, Any]], field: str) -> pa.Table:
    names = {name: None for row in rows for name in row if not name.startswith(_RECIPE_PREFIX)}
    columns: dict[str, pa.Array] = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise JobFailed(f"{field}: {path}: the values of '{name}' have different types: {error}") from error
    return pa.table(columns)
