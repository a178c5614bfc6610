"""Regular expressions: those that users give to operators, and fast ones that find the rows to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import pyarrow.compute as pc
import regex
from pydantic import AfterValidator

from raysandbox.ops.batch import Batch
from raysandbox.ops.text import replace_rows, text_array

__all__ = ["Pattern", "change_where", "compile_pattern", "rows_with", "substitute"]


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compiles a pattern, also one that is written as a Python literal: r'…' or r"…"."""
    if len(pattern) > 2 and pattern[0] == "r" and pattern[1] in "'\"" and pattern[-1] == pattern[1]:
        pattern = pattern[2:-1]
    return regex.compile(pattern, flags=regex.DOTALL)


def _check(pattern: str | None) -> str | None:
    if pattern is not None:
        try:
            compile_pattern(pattern)
        except regex.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str | None, AfterValidator(_check)]


def substitute(batch: Batch, pattern: regex.Pattern[str], repl: str) -> Batch:
    """The batch with every match of a pattern replaced."""
    new = [pattern.sub(repl, text) for text in batch.texts]
    rows = [row for row, (before, after) in enumerate(zip(batch.texts, new, strict=True)) if before != after]
    return replace_rows(batch, rows, [new[row] for row in rows])


def rows_with(batch: Batch, sign: str) -> np.ndarray:
    """Tells per row (bool) whether RE2 finds the regular expression `sign` in its text."""
    found = pc.call_function("match_substring_regex", [text_array(batch)], pc.MatchSubstringOptions(sign))
    return found.to_numpy(zero_copy_only=False)


def change_where(batch: Batch, sign: str, change: Callable[[str], str]) -> Batch:
    """The batch with its texts changed, where RE2 finds `sign` in them."""
    texts = text_array(batch)
    rows: list[int] = []
    changed: list[str] = []
    for row in np.flatnonzero(rows_with(batch, sign)).tolist():
        old = texts[row].as_py()
        new = change(old)
        if new != old:
            rows.append(row)
            changed.append(new)
    return replace_rows(batch, rows, changed)
