"""How long the calls of workers take, so that one which hangs is noticed."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque

__all__ = ["Pace"]

_TIMES = 10.0  # longer than the median of those that ended is worth a word
_LEAST_S = 60.0
_FIRST_S = 600.0  # where none ended yet
_KEPT = 200


class Pace:
    """Remembers the latest calls of each kind."""

    def __init__(self) -> None:
        self._took: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._medians: dict[str, float] = {}

    def ended(self, kind: str, seconds: float) -> None:
        """A call returned."""
        self._took[kind].append(seconds)
        self._medians.pop(kind, None)

    def left(self, kind: str, seconds: float) -> float:
        """How much longer a call that has taken so long is likely to take; 0 where none ended yet."""
        usual = self._usual(kind)
        return 0.0 if usual is None else max(usual - seconds, 0.0)

    def slow(self, kind: str, seconds: float) -> str:
        """How a call that has taken so long compares with others; empty while it is nothing unusual."""
        if seconds <= _LEAST_S:
            return ""
        usual = self._usual(kind)
        if seconds <= (_FIRST_S if usual is None else max(_LEAST_S, _TIMES * usual)):
            return ""
        others = "none has ended yet" if usual is None else f"others took {usual:.3g} s"
        return f"has taken {seconds:.0f} s so far, {others}"

    def _usual(self, kind: str) -> float | None:
        """The median of the latest; asked for every worker between two ends, so it is remembered."""
        if kind not in self._medians and self._took[kind]:
            self._medians[kind] = statistics.median(self._took[kind])
        return self._medians.get(kind)
