"""What an operator is, as far as its results depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.keys import DigestMemo, code_version
from raysandbox.ops.base import Filter, Operator

__all__ = ["operator_identity"]


def operator_identity(op: Operator, memo: DigestMemo, *, with_thresholds: bool) -> list[Any]:
    """Name, parameters, code, and the content of the files that the parameters name.

    Args:
        op: the operator.
        memo: remembers digests of files.
        with_thresholds: whether parameters that only a filter's decision depends on belong to it.
    """
    ignored = set() if with_thresholds or not isinstance(op, Filter) else set(op.thresholds())
    parameters = op.model_dump(mode="json", exclude=ignored)
    files = [ref.path for ref in path_refs(type(op), parameters) if ref.role is not PathRole.OUTPUT]
    contents = [[path, memo.of(Path(path).expanduser())] for path in files]
    return [op.type_name, parameters, code_version(type(op)), contents]
