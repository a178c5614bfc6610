"""Regular expressions that users give to operators."""

from __future__ import annotations

from typing import Annotated

import regex
from pydantic import AfterValidator

from raysandbox.ops.batch import Batch
from raysandbox.ops.text import replace_rows

__all__ = ["Pattern", "compile_pattern", "substitute"]


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
