"""Units and their results as bytes, on the way to other processes and back.

A unit's files travel with it: nodes need not share a folder.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from raysandbox.core.disk import writes
from raysandbox.core.errors import UserError, WriteFailed
from raysandbox.recipe.parts import Staged, Unit, UnitReport, UnitWork

__all__ = ["RESULT", "packed", "run_packed", "unpacked"]

_FILES = pa.struct([("name", pa.string()), ("content", pa.large_binary())])
_UNIT = pa.schema([("unit", pa.large_binary()), ("files", pa.large_list(_FILES))])
RESULT = pa.schema([("result", pa.large_binary()), ("files", pa.large_list(_FILES))])


def packed(unit: Unit) -> pa.Table:
    """A block that describes a unit; what an earlier segment left for it goes along."""
    files: list[dict[str, Any]] = []
    if isinstance(unit.source, Staged):
        files = [{"name": path.name, "content": path.read_bytes()} for path in unit.source.parts]
    return pa.Table.from_pylist([{"unit": pickle.dumps(unit), "files": files}], _UNIT)


def run_packed(descriptor: pa.Table, work: UnitWork) -> pa.Table:
    """Does the unit that a block describes, in a folder of the worker's own; returns a block of its result."""
    (row,) = descriptor.to_pylist()
    try:
        with writes(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="raysandbox-") as name:
            folder = Path(name)
            result = {"result": pickle.dumps(_result(row, work, folder)), "files": _contents(folder / "out")}
    except WriteFailed as error:
        result = {"result": pickle.dumps(error), "files": []}
    return pa.Table.from_pylist([result], RESULT)


def _result(row: dict[str, Any], work: UnitWork, folder: Path) -> UnitReport | UserError:
    unit: Unit = pickle.loads(row["unit"])
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for file in row["files"]:
        (folder / "in" / file["name"]).write_bytes(file["content"])
    if isinstance(unit.source, Staged):
        unit = replace(unit, source=replace(unit.source, parts=_moved(unit.source.parts, folder / "in")))
    try:
        return replace(cast(Any, work), staging=folder / "out").run(unit)
    except UserError as error:
        return error  # raised again where the user sees it, without Ray's wrapping


def _contents(folder: Path) -> list[dict[str, Any]]:
    return [{"name": path.name, "content": path.read_bytes()} for path in sorted(folder.iterdir())]


def unpacked(row: dict[str, Any], staging: Path) -> UnitReport:
    """The report in a row of `run_packed`; the unit's files stand in `staging` afterwards.

    Raises:
        UserError: what the unit raised, as it raised it.
    """
    result: UnitReport | UserError = pickle.loads(row["result"])
    if isinstance(result, UserError):
        raise result
    for file in row["files"]:
        (staging / file["name"]).write_bytes(file["content"])
    result.parts = list(_moved(result.parts, staging))
    if result.quarantine is not None:
        result.quarantine = staging / result.quarantine.name
    return result


def _moved(paths: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    return tuple(folder / path.name for path in paths)
