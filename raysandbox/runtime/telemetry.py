"""Numbers of a run for Prometheus, through Ray's metrics; without Ray nothing happens.

The driver reports them all, since whatever ends comes back to it: units, blocks of rows, jobs. Their
labels are the run, the job, its hook and, for some, the operator, so that their number is that of what
a configuration names. A call takes microseconds and is made once per unit or block, not per row.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from raysandbox.runtime.session import is_connected

__all__ = ["METRICS", "Kind", "Level", "count", "exported_name", "measured_as", "observe"]


@dataclass(frozen=True)
class Kind:
    """A metric.

    Attributes:
        form: Prometheus' kind; the value of a gauge is that of all `Level`s together.
        text: what it counts, with its unit.
        label: one more label, besides run, job and hook.
    """

    form: Literal["counter", "gauge", "histogram"]
    text: str
    label: str = ""


METRICS: Mapping[str, Kind] = MappingProxyType(
    {
        "jobs_running": Kind("gauge", "Jobs that are being done, elements of `foreach` each."),
        "jobs_ended": Kind("counter", "Jobs that ended, by state: done, cached, failed, pending.", "state"),
        "units_done": Kind("counter", "Units of work that workers have done."),
        "units_lost": Kind("counter", "Times that a worker was lost with its unit, or failed at it."),
        "unit_seconds": Kind("histogram", "Seconds that a unit took in its worker."),
        "queue_length": Kind("gauge", "Units that no worker has begun yet."),
        "workers": Kind("gauge", "Workers that have loaded and can do units."),
        "gpu_wait_seconds": Kind("counter", "Seconds that workers held a GPU and had no unit to do."),
        "rows": Kind("counter", "Rows that recipes have read."),
        "operator_rows": Kind("counter", "Rows that came to an operator.", "operator"),
        "operator_seconds": Kind("counter", "Seconds that an operator worked, over all processes.", "operator"),
        "cache_hits": Kind("counter", "Things taken instead of made, by kind: job, statistic.", "kind"),
    }
)
_PREFIX = "raysandbox_"
_SECONDS = [0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0]  # bounds of a histogram's buckets
_NOWHERE = {"run": "", "job": "", "hook": ""}

_labels: ContextVar[Mapping[str, str]] = ContextVar("labels", default=_NOWHERE)
_made: dict[str, Any] = {}
_totals: defaultdict[tuple[Any, ...], float] = defaultdict(float)
_lock = threading.Lock()


def exported_name(name: str) -> str:
    """The name under which Prometheus finds a metric of `METRICS`; a histogram's series begin with it."""
    return f"ray_{_PREFIX}{name}" + ("_total" if METRICS[name].form == "counter" else "")


@contextlib.contextmanager
def measured_as(run: str, job: str, hook: str) -> Iterator[None]:
    """Says whose numbers are reported in this thread while the block runs."""
    token = _labels.set({"run": run, "job": job, "hook": hook})
    try:
        yield
    finally:
        _labels.reset(token)


def count(name: str, amount: float = 1.0, label: str = "") -> None:
    """Adds to a counter.

    Args:
        name: of `METRICS`.
        amount: what to add; nothing is done for 0.
        label: value of the metric's own label, where it has one.
    """
    if amount > 0 and is_connected():
        _metric(name).inc(amount, _tags(name, label))


def observe(name: str, value: float) -> None:
    """Adds a value to a histogram."""
    if is_connected():
        _metric(name).observe(value, _tags(name, ""))


class Level:
    """One holder's part of a gauge, whose value is the sum of all parts with the same labels.

    Args:
        name: of `METRICS`; its labels are those of the thread that makes this.
    """

    def __init__(self, name: str) -> None:
        self._name, self._tags, self._value = name, _tags(name, ""), 0.0

    def set(self, value: float) -> None:
        """Sets the part; the last one a holder sets is 0."""
        if value == self._value:
            return
        key = (self._name, *self._tags.values())
        with _lock:
            _totals[key] += value - self._value
            self._value, total = value, _totals[key]
        if is_connected():
            _metric(self._name).set(total, self._tags)


def _tags(name: str, label: str) -> dict[str, str]:
    own = METRICS[name].label
    return {**_labels.get(), own: label} if own else dict(_labels.get())


def _metric(name: str) -> Any:
    """Ray's metric of that name, made at its first use."""
    with _lock:
        if name not in _made:
            from ray.util import metrics

            kind = METRICS[name]
            keys = tuple(_NOWHERE) + ((kind.label,) if kind.label else ())
            given: dict[str, Any] = {"description": kind.text, "tag_keys": keys}
            if kind.form == "histogram":
                _made[name] = metrics.Histogram(_PREFIX + name, boundaries=_SECONDS, **given)
            else:
                _made[name] = {"counter": metrics.Counter, "gauge": metrics.Gauge}[kind.form](_PREFIX + name, **given)
        return _made[name]
