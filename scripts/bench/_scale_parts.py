"""What the parts of `scale` share: rows of its table."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Row", "Rows"]

MEGABYTE = 1e6


@dataclass
class Row:
    """A measurement.

    Attributes:
        name: what was done.
        amount: how often, or how many.
        unit: of what.
        seconds: wall time.
        cpu_seconds: user and system time of this process.
        peak_mb: most memory that this process ever had, until the end of it.
        most_s: seconds that are aimed at; None for no aim.
        least_rate: amount per second that is aimed at; None for no aim.
        facts: other numbers.
    """

    name: str
    amount: int
    unit: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    most_s: float | None = None
    least_rate: float | None = None
    facts: dict[str, Any] = field(default_factory=lambda: {})
    began: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.began

    @property
    def rate(self) -> float:
        """Amount per second."""
        return self.amount / max(self.seconds, 1e-9)

    @property
    def reached(self) -> bool | None:
        """Whether what is aimed at is reached; None where nothing is."""
        if self.most_s is None and self.least_rate is None:
            return None
        in_time = self.most_s is None or self.seconds <= self.most_s
        return in_time and (self.least_rate is None or self.rate >= self.least_rate)


class Rows:
    """Collects measurements of a process.

    Args:
        small: whether amounts are cut down, as a test of the benchmark itself does; nothing is aimed at then.
    """

    def __init__(self, small: bool) -> None:
        self.small = small
        self.rows: list[Row] = []

    @contextlib.contextmanager
    def timed(
        self, name: str, amount: int, unit: str, *, most_s: float | None = None, least_rate: float | None = None
    ) -> Iterator[Row]:
        """Measures the block; the row may get facts and another amount meanwhile."""
        aims = {} if self.small else {"most_s": most_s, "least_rate": least_rate}
        row = Row(name, amount, unit, **aims)
        cpu = time.process_time()
        yield row
        row.seconds, row.cpu_seconds = row.elapsed, time.process_time() - cpu
        row.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE
        self.rows.append(row)

    def as_json(self) -> list[dict[str, Any]]:
        """The measurements as JSON holds them."""
        return [
            {key: value for key, value in asdict(row).items() if key != "began"}
            | {"rate": row.rate, "reached": row.reached}
            for row in self.rows
        ]
