"""The plain question, after its instructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysandbox.core.registry import register
from raysandbox.executors.messages.base import Message, MessageBuilder, text_of

__all__ = ["BuildMessages"]


@register("build_messages")
class BuildMessages(MessageBuilder):
    """The row's system text, if it has one, and its query as the user's message, unchanged."""

    example: ClassVar[Mapping[str, Any]] = {"system_key": "system", "query_key": "query"}

    def build(self, row: Mapping[str, Any]) -> list[Message]:
        """One or two messages; a row without a query is refused."""
        system = text_of(row, self.system_key, needed=False)
        question = {"role": "user", "content": text_of(row, self.query_key)}
        return [{"role": "system", "content": system}, question] if system.strip() else [question]
