"""Message builders: how a row becomes what a chat model is asked, chosen by `build_messages_func`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry

__all__ = ["MESSAGE_BUILDERS", "Message", "MessageBuilder", "text_of"]

MESSAGE_BUILDERS = Registry("message builder", ["raysandbox.executors.messages"])

Message = dict[str, Any]  # {"role": "system" | "user" | "assistant", "content": …}


class MessageBuilder(Component):
    """Makes a chat of a row; its fields are what `func_kwargs` may set."""

    registry: ClassVar[Registry] = MESSAGE_BUILDERS

    system_key: str = Field("system", description="key of the instructions that precede the question; may be absent")
    query_key: str = Field("query", description="key of the question")
    response_key: str = Field(
        "response", description="key of the reference answer, for builders that show it; the built-in ones do not"
    )

    def build(self, row: Mapping[str, Any]) -> list[Message]:
        """The messages that the model is sent for a row.

        Raises:
            ValueError: the row lacks what is needed: it becomes a bad row with this reason.
        """
        raise NotImplementedError


def text_of(row: Mapping[str, Any], key: str, *, needed: bool = True) -> str:
    """The text under a key; "" where it may be absent.

    Raises:
        ValueError: it is needed and absent or blank, or it is no text.
    """
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"'{key}' is of type {type(value).__name__}, not text")
    text = value or ""
    if needed and not text.strip():
        raise ValueError(f"'{key}' is empty" if key in row else f"no '{key}'")
    return text
