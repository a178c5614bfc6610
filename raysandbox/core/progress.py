"""How long work tells that it moves; the command line draws it, libraries stay silent."""

from __future__ import annotations

__all__ = ["Progress"]


class Progress:
    """Receives the progress of one piece of work. This one shows nothing."""

    def begin(self, description: str, total: float | None = None, unit: str = "rows") -> None:
        """Starts a step. `total` is None when its length is unknown."""

    def advance(self, amount: float) -> None:
        """Moves the current step on by `amount` of its unit."""

    def end(self) -> None:
        """Ends the current step."""
