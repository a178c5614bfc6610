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

    def ended(self, kind: str, seconds: float) -> None:
        """A call returned."""
        self._took[kind].append(seconds)

    def left(self, kind: str, seconds: float) -> float:
        """How much longer a call that has taken so long is likely to take; 0 where none ended yet."""
        took = self._took[kind]
        return max(statistics.median(took) - seconds, 0.0) if took else 0.0

    def slow(self, kind: str, seconds: float) -> str:
        """How a call that has taken so long compares with others; empty while it is nothing unusual."""
        took = self._took[kind]
        usual = statistics.median(took) if took else None
        if seconds <= (_FIRST_S if usual is None else max(_LEAST_S, _TIMES * usual)):
            return ""
        others = "none has ended yet" if usual is None else f"others took {usual:.3g} s"
        return f"has taken {seconds:.0f} s so far, {others}"
