"""How much the workers of a job do: their number, the share of their time that units take, their GPUs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from raysandbox.core.runner import Report

__all__ = ["Meter"]

_REPORT_S = 5.0


class Meter:
    """Adds up what workers do and reports it now and then.

    Args:
        report: receives `workers`, `busy_share` (of the time since the last report) and, where GPUs
            tell, `gpu_utilization` (percent, mean over units since the last report); None for no reports.
    """

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self._workers = 0
        self._present = 0.0  # seconds of all workers together
        self._done = 0.0  # seconds of the units that ended
        self._utilization: list[float] = []
        self._now = self._reported = time.monotonic()
        self._before = (0.0, 0.0)  # seconds present and busy at the last report
        self._waited = 0.0

    def joined(self) -> None:
        """A worker can do units from now on."""
        self._advance()
        self._workers += 1

    def left(self) -> None:
        """A worker that could do units has gone."""
        self._advance()
        self._workers -= 1

    def did(self, seconds: float, utilization: float | None) -> None:
        """A unit ended: how long it took, how busy its GPU was."""
        self._done += seconds
        if utilization is not None:
            self._utilization.append(utilization)

    def tick(self, begun: Sequence[float], *, last: bool = False) -> None:
        """Reports, unless that was a moment ago.

        Args:
            begun: when the units that are being done began, in seconds of the monotonic clock.
            last: whether no more will come; that is always reported.
        """
        if self._report is None or (not last and time.monotonic() < self._reported + _REPORT_S):
            return
        self._advance()
        self._reported = self._now
        present, busy = self._present, self._done + sum(self._now - start for start in begun)
        metrics = {"workers": float(self._workers)}
        if present > self._before[0]:
            share = (busy - self._before[1]) / (present - self._before[0])
            metrics["busy_share"] = min(max(share, 0.0), 1.0)
        if self._utilization:
            metrics["gpu_utilization"] = statistics.fmean(self._utilization)
        self._before = (present, busy)
        self._utilization.clear()
        self._report(metrics)

    def waited(self, begun: Sequence[float]) -> float:
        """Seconds that workers, all together, have had nothing to do since this was asked last.

        Args:
            begun: as for `tick`.
        """
        self._advance()
        busy = self._done + sum(self._now - start for start in begun)
        more = max(self._present - busy - self._waited, 0.0)
        self._waited += more
        return more

    def _advance(self) -> None:
        now = time.monotonic()
        self._present += self._workers * (now - self._now)
        self._now = now
