"""Near-duplicate texts by their shingles: what the sketching deduplicators share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, NamedTuple

import numpy as np
import regex
from pydantic import AfterValidator, Field

from raysandbox.ops import tables
from raysandbox.ops.base import Deduplicator
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import CodePoints, code_points, lowered_points
from raysandbox.ops.tokenization import Splitter

__all__ = ["ShingleDeduplicator", "Tokens"]

_SEPARATOR = tables.CODE_POINTS  # no code point: stands after each piece that a tokenizer found
# How texts are cut: whether every character is a token, whether empty tokens count, and whether
# shingles have a space between their tokens.
_RULES = {
    "space": (False, False, True),
    "punctuation": (False, True, True),
    "character": (True, False, False),
    "sentencepiece": (False, False, False),
}


def _check(pattern: str | None) -> str | None:
    if pattern is not None:
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    return pattern


class Tokens(NamedTuple):
    """The texts of a batch and how to cut them, in the order of the arguments of `shingle_kernels`."""

    codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    ends_token: np.ndarray
    rule: tuple[bool, bool, bool]
    window: int


class ShingleDeduplicator(Deduplicator):
    """Compares texts by the set of their shingles: windows of consecutive tokens."""

    window_size: int = Field(5, ge=1, description="tokens in a shingle; texts with fewer count as equal")
    lowercase: bool = Field(True, description="compare in lower case")
    ignore_pattern: Annotated[str | None, AfterValidator(_check)] = Field(
        None, description="regular expression of what is cut out before comparing, after lowering"
    )

    def tokens(self, batch: Batch, tokenization: str, splitter: Splitter | None = None) -> Tokens:
        """The texts as the kernels take them, and how they are cut.

        Args:
            batch: the rows.
            tokenization: a key of `_RULES`.
            splitter: finds the pieces for "sentencepiece".
        """
        points = self._points(batch, splitter)
        return Tokens(
            points.codes,
            points.starts,
            points.ends,
            _separators(tokenization),
            _RULES[tokenization],
            self.window_size,
        )

    def _points(self, batch: Batch, splitter: Splitter | None) -> CodePoints:
        if splitter is None and self.ignore_pattern is None:
            return lowered_points(batch) if self.lowercase else code_points(batch)
        texts = [text.lower() for text in batch.texts] if self.lowercase else batch.texts
        if self.ignore_pattern is not None:
            pattern = regex.compile(self.ignore_pattern)
            texts = [pattern.sub("", text) for text in texts]
        return code_points(batch.with_texts(texts)) if splitter is None else _joined(splitter.split(texts))


def _joined(rows: Sequence[Sequence[str]]) -> CodePoints:
    """Code points of rows of pieces, with a separator after each piece."""
    pieces = [piece for row in rows for piece in row]
    codes = np.frombuffer("".join(pieces).encode("utf-32-le"), np.uint32)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    bounds = np.concatenate(([0], ends + np.arange(1, len(pieces) + 1)))
    edges = bounds[np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64)))]
    return CodePoints(np.insert(codes, ends, _SEPARATOR), edges[:-1].copy(), edges[1:].copy())


@cache
def _separators(tokenization: str) -> np.ndarray:
    """A uint8 table that is 1 for what stands between tokens, `_SEPARATOR` included."""
    table = np.zeros(tables.CODE_POINTS + 1, np.uint8)
    if tokenization == "space":
        table[ord(" ")] = 1
    elif tokenization == "punctuation":
        table[: tables.CODE_POINTS] = tables.matching(r"\p{P}")
    table[_SEPARATOR] = tokenization == "sentencepiece"
    return table
