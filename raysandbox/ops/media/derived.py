"""Files that operators make of others: where they lie and what they are called."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pyarrow as pa

from raysandbox.core.keys import digest
from raysandbox.ops.batch import Batch

__all__ = ["SOURCE_COLUMN", "derived_name", "derived_path", "with_column", "with_lists"]

SOURCE_COLUMN = "__dj__source_file__"  # for every file of a row that it was made of
_FOLDER = "__dj__produced_data__"
_HASH = re.compile(r"__dj_hash_#.*?#")


def derived_path(path: str, operator: str, save_dir: str | None, parameters: Mapping[str, Any]) -> str:
    """Where an operator writes what it makes of a file, in Data-Juicer's layout.

    That is `save_dir`, or the operator's folder in that of the environment variable
    DJ_PRODUCED_DATA_DIR, or in `__dj__produced_data__` beside the original.
    """
    produced = os.environ.get("DJ_PRODUCED_DATA_DIR")
    if save_dir:
        folder = os.path.abspath(save_dir)
    elif produced:
        folder = os.path.join(os.path.abspath(produced), operator)
    else:
        beside = os.path.dirname(path).split(f"/{_FOLDER}/")[0]
        folder = os.path.join(beside, _FOLDER, operator)
    return os.path.join(folder, derived_name(path, parameters) + os.path.splitext(path)[1])


def derived_name(path: str, parameters: Mapping[str, Any]) -> str:
    """The original's name with a hash of its content and of the parameters; replaces such a hash."""
    stem = _HASH.split(os.path.splitext(os.path.basename(path))[0])[0]
    status = os.stat(path)
    content = _content(path, status.st_size, status.st_mtime_ns)
    return f"{stem}__dj_hash_#{digest([content, dict(parameters)])[:32]}#"


def with_column(batch: Batch, name: str, values: pa.Array) -> Batch:
    """The batch with a column, in place of that of the same name if there is one."""
    names = batch.table.column_names
    if name in names:
        return replace(batch, table=batch.table.set_column(names.index(name), name, values))
    return replace(batch, table=batch.table.append_column(name, values))


def with_lists(batch: Batch, name: str, rows: Sequence[Sequence[str] | None]) -> Batch:
    """The batch with a column of lists of files, of the type that it has already."""
    schema = batch.table.schema
    kind = schema.field(name).type if name in schema.names else pa.list_(pa.large_string())
    return with_column(batch, name, pa.array(rows, kind))


@lru_cache(maxsize=1024)
def _content(path: str, size: int, modified: int) -> str:
    """Hash of a file's content, computed again when its size or time of change differs."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
