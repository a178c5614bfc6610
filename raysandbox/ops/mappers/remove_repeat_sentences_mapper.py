"""Removes repeated sentences within a text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import regex
from pydantic import BeforeValidator, Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import CodePoints, code_points, leave_out

__all__ = ["RemoveRepeatSentencesMapper"]

_COUNTED = r"a-zA-Z0-9\u4e00-\u9fa5\n\t "


def _refuse(tokenizer: Any) -> None:
    if tokenizer is not None:
        raise ValueError("a function in a recipe is not run; leave it out, or write an operator of your own")


@cache
def _classes() -> np.ndarray:
    """Classes of code points for `sentence_kernels.sentences`."""
    from raysandbox.ops import sentence_kernels

    return (
        tables.members(".。!！？?") * sentence_kernels.SENTENCE_END
        | tables.members(".。!！？?{6}…2") * sentence_kernels.QUOTED_END  # sic: Data-Juicer's pattern
        | tables.members("’”") * sentence_kernels.QUOTE
        | tables.members("…") * sentence_kernels.ELLIPSIS
        | tables.members("\n") * sentence_kernels.NEWLINE
    )


@cache
def _folded(lowercase: bool, ignore_special_character: bool) -> np.ndarray:
    """What each code point is compared as (uint32), for `sentence_kernels.repeated`."""
    from raysandbox.ops import sentence_kernels

    table = tables.lower() if lowercase else np.arange(tables.CODE_POINTS, dtype=np.uint32)
    if not ignore_special_character:
        return table
    return np.where(tables.matching(f"[{_COUNTED}]")[table] == 1, table, sentence_kernels.DROPPED)


@register("remove_repeat_sentences_mapper")
class RemoveRepeatSentencesMapper(Mapper):
    """Keeps the first of equal sentences of a text."""

    example: ClassVar[Mapping[str, Any]] = {"lowercase": True}

    lowercase: bool = Field(False, description="compare in lower case")
    ignore_special_character: bool = Field(
        True, description="compare only Latin letters, Chinese characters, digits and white space"
    )
    min_repeat_sentence_length: int = Field(
        2, description="sentences of fewer compared characters stay even if they repeat"
    )
    tokenizer: Annotated[None, BeforeValidator(_refuse)] = Field(
        None, description="Data-Juicer's function that splits sentences; not run here"
    )

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch without repeated sentences."""
        from raysandbox.ops import kernels, sentence_kernels

        points = code_points(batch)
        spans = sentence_kernels.sentences(points.codes, points.starts, points.ends, _classes())
        stripped = _stripped(points, spans)
        folded = _folded(self.lowercase, self.ignore_special_character)
        repeated = sentence_kernels.repeated(points.codes, stripped, folded, self.min_repeat_sentence_length)
        if self.lowercase:
            irregular = kernels.any_in(points.codes, points.starts, points.ends, tables.lowers_in_context())
            chosen = np.flatnonzero(irregular[spans[:, 0]])
            repeated[chosen] = self._repeated_in_context(points, stripped[chosen])
        return leave_out(batch, spans[repeated])

    def _repeated_in_context(self, points: CodePoints, stripped: np.ndarray) -> list[bool]:
        """The same as `sentence_kernels.repeated`, for texts whose lower case depends on the context."""
        ignored = regex.compile(f"[^{_COUNTED}]")
        seen = set[tuple[int, str]]()
        repeated: list[bool] = []
        for row, start, end, _ in stripped.tolist():
            text = points.slice(start, end).lower()
            if self.ignore_special_character:
                text = ignored.sub("", text)
            counts = len(text) >= self.min_repeat_sentence_length
            repeated.append(counts and (row, text) in seen)
            if counts:
                seen.add((row, text))
        return repeated


def _stripped(points: CodePoints, spans: np.ndarray) -> np.ndarray:
    """The spans without white space at their ends."""
    from raysandbox.ops import edit_kernels

    row, start, end, rest = np.ascontiguousarray(spans.T)
    return np.stack((row, *edit_kernels.strip(points.codes, start, end, tables.whitespace()), rest), axis=1)
