"""What workers are sent for a row; imports nothing but Python's standard library."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Prompt", "seed_of"]


@dataclass(frozen=True)
class Prompt:
    """A chat to go on with.

    Attributes:
        messages: the chat.
        name: of the request, by its content.
    """

    messages: Sequence[Mapping[str, Any]]
    name: str

    def plain(self) -> str:
        """The messages as one text, for models without a chat template."""
        return "\n\n".join(str(message["content"]) for message in self.messages)


def seed_of(seed: int, prompt: Prompt) -> int:
    """The seed of a row, of 63 bits: the same wherever and beside whatever it is worked on."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt.name}".encode()).digest()[:8], "little") >> 1
