"""Keeps texts by their share of letters and digits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import code_points, share_in
from raysandbox.ops.tokenization import Splitter, Tokenization, Tokenizer, load_splitter

__all__ = ["AlphanumericFilter"]


@cache
def _letters() -> np.ndarray:
    """1 where `str.isalpha` holds."""
    return tables.from_predicate(str.isalpha)


@register("alphanumeric_filter")
class AlphanumericFilter(Filter):
    """Keeps texts whose share of letters and digits lies within a range.

    With tokenization it is the number of letters by the number of tokens.
    """

    example: ClassVar[Mapping[str, Any]] = {"min_ratio": 0.25}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("alnum_ratio", "min_ratio", "max_ratio", 0, 1),)

    tokenization: Tokenization = False
    tokenizer: Tokenizer = None
    min_ratio: float | None = Field(0.25, description="smallest share of letters and digits")
    max_ratio: float | None = Field(sys.maxsize, description="largest share of letters and digits")

    def statistics(self) -> tuple[Stat, ...]:
        """`alpha_token_ratio` with tokenization, else `alnum_ratio`."""
        return (Stat("alpha_token_ratio", "min_ratio", "max_ratio", 0),) if self.tokenization else self.stats

    def load(self) -> Splitter | None:
        """Loads the tokenizer, if there is one."""
        return load_splitter(self.tokenizer if self.tokenization else None)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the share by characters, or by tokens; 0 for an empty text."""
        if not self.tokenization:
            return {"alnum_ratio": share_in(batch, tables.alphabetic_or_numeric())}
        from raysandbox.ops import kernels

        points = code_points(batch)
        letters = kernels.count_in(points.codes, points.starts, points.ends, _letters())
        tokens = np.array([len(pieces) for pieces in state.pieces(batch)], np.int64)
        return {"alpha_token_ratio": pa.array(np.where(tokens, letters / np.maximum(tokens, 1), 0.0))}
