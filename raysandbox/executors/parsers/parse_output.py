"""The answer itself, without what surrounds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysandbox.core.registry import register
from raysandbox.executors.parsers.base import OutputParser

__all__ = ["ParseOutput"]

_BEGIN, _END = "<think>", "</think>"


@register("parse_output")
class ParseOutput(OutputParser):
    """The text without white space around it and without a leading `<think>…</think>` block."""

    example: ClassVar[Mapping[str, Any]] = {}

    def parse(self, text: str) -> str:
        """The cleaned text; nothing left, or a thought that never ends, is refused."""
        # Where the chat template opens the block, only its end is in the text.
        thought, end, rest = text.strip().removeprefix(_BEGIN).partition(_END)
        answer = rest.strip() if end and _BEGIN not in thought else text.strip()
        if answer.startswith(_BEGIN):
            raise ValueError(f"the answer ends inside its {_BEGIN} block (allow more new tokens)")
        if not answer:
            raise ValueError("the answer is empty")
        return answer
