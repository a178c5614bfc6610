"""Expands macros in LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import regex

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.patterns import change_where

__all__ = ["ExpandMacroMapper"]

_DEFINITIONS = (
    regex.compile(r"\\newcommand\b\*?\{(\\[a-zA-Z0-9]+)\}\{(.*?)\}$", regex.MULTILINE),
    regex.compile(r"\\def\s*(\\[a-zA-Z0-9]+)\s*\{(.*?)\}$", regex.MULTILINE),
)


@register("expand_macro_mapper")
class ExpandMacroMapper(Mapper):
    r"""Replaces macros without arguments, as \newcommand and \def define them, by their values."""

    example: ClassVar[Mapping[str, Any]] = {}

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with the macros expanded."""
        return change_where(batch, r"\\newcommand|\\def", _expand)


def _expand(text: str) -> str:
    macros = {match[1]: match[2] for pattern in _DEFINITIONS for match in pattern.finditer(text)}
    for name, value in macros.items():
        # The character after the name is not part of a longer name; it stays.
        text = regex.sub(regex.escape(name) + "([^a-zA-Z0-9])", partial(_value_and_rest, value), text)
    return text


def _value_and_rest(value: str, match: regex.Match[str]) -> str:
    return value + match[1]
