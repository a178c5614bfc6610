"""What a finished `process` leaves beside its output, so that repeating it does no work."""

from __future__ import annotations

import glob
import json
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_write, read_object
from raysandbox.core.keys import DigestMemo, FileStamps, code_version, digest
from raysandbox.core.names import is_remote
from raysandbox.ops.base import Operator
from raysandbox.recipe.blocks import Block
from raysandbox.recipe.fused import FusedOps
from raysandbox.recipe.identity import operator_identity
from raysandbox.recipe.inputs import InputFile
from raysandbox.recipe.remote import remote_stamps
from raysandbox.recipe.schema import Recipe
from raysandbox.recipe.units import Work

__all__ = ["Marker"]

# These say where and how fast, not what comes out.
_NOT_IN_KEY = {"project_name", "engine", "np", "percentiles", "export_original_dataset"}


class Marker:
    """The marker of one output.

    Args:
        export_path: the output.
        recipe: what made it.
        operators: the recipe's operators.
        files: what it read.
        memo: remembers digests of files.
    """

    def __init__(
        self,
        export_path: Path,
        recipe: Recipe,
        operators: Sequence[Operator],
        files: Sequence[InputFile],
        memo: DigestMemo,
    ) -> None:
        self._path = export_path.with_name(f".{export_path.name}.done.json")
        self._recipe = recipe
        self._operators = operators
        self._files = files
        self._memo = memo
        self._inputs = FileStamps.of(file.path for file in files if not is_remote(file.path))

    def read(self) -> Mapping[str, Any] | None:
        """What the finished run reported, if code, recipe, input and output are still the same.

        Media files that rows name are not looked at here, so recipes that read them run again.
        """
        if any(kind in ("image", "video", "audio") for op in self._operators for kind in op.reads):
            return None
        content = read_object(self._path)
        result = content.get("result")
        if not isinstance(result, dict) or content.get("output") != _stamps(str(result.get("path", ""))):
            return None  # never finished here, or torn: do the work
        return result if content.get("key") == self._key else None

    def write(self, result: Mapping[str, Any]) -> None:
        """Marks the output as finished, unless the input is no longer what it was before it was read."""
        if self._inputs.changed:
            return
        content = {"key": self._key, "output": _stamps(result["path"]), "result": dict(result)}
        atomic_write(self._path, json.dumps(content, ensure_ascii=False, indent=1))

    def clear(self) -> None:
        """Removes the marker before the output is written again."""
        _ = self._key  # of the input as it is now, before it is read
        self._path.unlink(missing_ok=True)

    @cached_property
    def _key(self) -> str:
        code = code_version(Recipe, Work, FusedOps, Block)
        recipe = self._recipe.model_dump(mode="json", exclude=_NOT_IN_KEY)
        operators = [operator_identity(op, self._memo, with_thresholds=True) for op in self._operators]
        files = [[file.path, self._content(file)] for file in self._files]
        return digest([code, recipe, operators, files])

    def _content(self, file: InputFile) -> str | None:
        """What names a file's content; a URL whose store tells no version is never the same again."""
        if is_remote(file.path):
            return file.stamp or uuid.uuid4().hex
        return self._memo.of(Path(file.path))


def _stamps(path: str) -> list[list[Any]]:
    """Name, size and time of change of every output file."""
    if is_remote(path):
        return remote_stamps(path)
    found = sorted(glob.glob(path)) if "*" in path else [path]
    stats = [(name, Path(name).stat()) for name in found if Path(name).is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
