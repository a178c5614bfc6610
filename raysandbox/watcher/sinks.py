"""Where metrics go besides `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["NullSink", "Sink", "SinkState"]


@dataclass(frozen=True)
class SinkState:
    """How a sink fared.

    Attributes:
        mode: "online", "offline", "disabled", or "not installed".
        given: how many metrics of this process's life it took.
        failures: how often it failed.
        error: the first failure, None when there was none.
    """

    mode: str
    given: int = 0
    failures: int = 0
    error: str | None = None


class Sink(Protocol):
    """Follows the metrics file in its own time; never raises, never blocks its caller."""

    def wake(self) -> None:
        """Tells that the file has grown."""
        ...

    def configure(self, config: Mapping[str, Any], group: str | None = None) -> None:
        """Adds to the run's configuration; a group counts if the run has not begun."""
        ...

    def close(self, timeout: float) -> SinkState:
        """Takes what is left, for at most `timeout` seconds."""
        ...


class NullSink:
    """Takes nothing.

    Args:
        mode: why, see `SinkState`.
    """

    def __init__(self, mode: str = "disabled") -> None:
        self._mode = mode

    def wake(self) -> None:
        """Does nothing."""

    def configure(self, config: Mapping[str, Any], group: str | None = None) -> None:
        """Does nothing."""

    def close(self, timeout: float) -> SinkState:
        """Returns at once."""
        return SinkState(self._mode)
