"""Removes words that hold certain strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import keep_words, plain_words, replace_rows
from raysandbox.ops.tokenization import Splitter, Tokenization, Tokenizer, load_splitter

__all__ = ["RemoveWordsWithIncorrectSubstringsMapper"]

_WORD_START = "▁"  # sentencepiece's sign
_LINK_PARTS = ("http", "www", ".com", "href", "//")


@register("remove_words_with_incorrect_substrings_mapper")
class RemoveWordsWithIncorrectSubstringsMapper(Mapper):
    """Removes the words that hold one of some strings; runs of white space become one sign.

    Special characters at the ends of a word do not count.
    """

    example: ClassVar[Mapping[str, Any]] = {"substrings": ["http", "www"]}

    lang: str = Field("en", description="Data-Juicer's choice of a tokenizer; `tokenizer` says it here")
    tokenization: Tokenization = False
    tokenizer: Tokenizer = None
    substrings: list[str] | None = Field(
        None, description="what no word may hold; by default http, www, .com, href and //"
    )

    def load(self) -> Splitter | None:
        """Loads the tokenizer, if there is one."""
        return load_splitter(self.tokenizer if self.tokenization else None)

    def process(self, batch: Batch, state: Splitter | None) -> Batch:
        """Returns the batch without those words; pieces of a tokenizer are joined without spaces."""
        if state is None:
            words = plain_words(batch)
            return keep_words(batch, words, self._right(words.codes, words.starts, words.ends))
        rows = [[piece.replace(_WORD_START, "") for piece in pieces] for pieces in state.pieces(batch)]
        flat = [piece for pieces in rows for piece in pieces]
        bounds = np.cumsum([0, *map(len, flat)])
        right = iter(self._right(_codes(flat), bounds[:-1], bounds[1:]).tolist())
        left = [[piece for piece in pieces if next(right)] for pieces in rows]
        changed = [row for row, pieces in enumerate(rows) if len(left[row]) < len(pieces)]
        return replace_rows(batch, changed, ["".join(left[row]) for row in changed])

    def _right(self, codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Tells per word (bool) whether it holds none of the strings."""
        from raysandbox.ops import edit_kernels, word_kernels

        substrings = _LINK_PARTS if self.substrings is None else self.substrings
        bounds = np.cumsum([0, *map(len, substrings)])
        starts, ends = edit_kernels.strip(codes, starts, ends, tables.special())
        return ~word_kernels.hold_any(codes, starts, ends, _codes(substrings), bounds)


def _codes(texts: Sequence[str]) -> np.ndarray:
    """The code points (uint32) of texts, one after the other."""
    return np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
