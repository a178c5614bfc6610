"""A mathematical question whose final answer can be found by a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysandbox.core.registry import register
from raysandbox.executors.messages.base import Message
from raysandbox.executors.messages.build_messages import BuildMessages

__all__ = ["BuildMessagesForMathQa"]

_TASK = "Solve this problem step by step. Give the final answer once, at the end, as \\boxed{answer}."


@register("build_messages_for_math_qa")
class BuildMessagesForMathQa(BuildMessages):
    r"""As build_messages, with the request to reason and to put the final answer into \boxed{}."""

    example: ClassVar[Mapping[str, Any]] = {"query_key": "question"}

    def build(self, row: Mapping[str, Any]) -> list[Message]:
        """One or two messages; the request stands before the question in the user's message."""
        *before, question = super().build(row)
        return [*before, {**question, "content": f"{_TASK}\n\n{question['content']}"}]
