"""Removes what stands before the first heading of LaTeX documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import regex
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import rows_with
from raysandbox.ops.text import replace_rows, text_array

__all__ = ["RemoveHeaderMapper"]

_SIGN = r"\\(?:chapter|part|(?:sub){0,2}section|(?:sub)?paragraph)"
_HEADING = regex.compile(_SIGN + r"\b\*?(?:\[.*?\])?\{.*?\}", regex.DOTALL)


@register("remove_header_mapper")
class RemoveHeaderMapper(Mapper):
    r"""Makes LaTeX documents start at their first heading: \chapter, \section, \paragraph …."""

    example: ClassVar[Mapping[str, Any]] = {"drop_no_head": False}

    drop_no_head: bool = Field(True, description="empty the texts that have no heading")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with shorter texts."""
        texts = text_array(batch)
        changed = dict[int, str]()
        for row in np.flatnonzero(rows_with(batch, _SIGN)).tolist():
            text = texts[row].as_py()
            if heading := _HEADING.search(text):
                changed[row] = text[heading.start() :]
        if self.drop_no_head:
            changed = {row: changed.get(row, "") for row in range(batch.num_rows)}
        return replace_rows(batch, list(changed), list(changed.values()))
