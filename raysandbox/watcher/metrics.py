"""Metrics: named plain values, and the file that holds them."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raysandbox.core.events import append_whole, read_events, repair_tail
from raysandbox.core.redact import REDACTED, is_secret_key, redact

__all__ = ["Metric", "MetricsLog", "flatten", "from_json"]

_LINE = frozenset({"seq", "name", "value", "client", "n"})
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Metric(NamedTuple):
    """One value of one metric.

    Attributes:
        name: dotted, `meta_name.key`.
        value: a number, or another JSON value.
        step: training step or iteration that it belongs to, if any.
        t: seconds since 1970 when it was reported.
        job: id of the job that reported it, "" for none.
        unit: key of the work that it belongs to: equal work, run once, has equal metrics.
    """

    name: str
    value: Any
    step: int | None
    t: float
    job: str = ""
    unit: str = ""


def flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, plain value) of a value or of the leaves of a mapping.

    Numbers of every library become Python's; texts are redacted; what JSON does not know becomes text.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(f"{name}.{key}", REDACTED if is_secret_key(str(key)) else item)
    else:
        plain = _plain(value)
        yield name, redact(plain) if isinstance(plain, str | list) else plain


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
        return _plain(value.item())
    return str(value)


class MetricsLog:
    """`metrics.jsonl`: one metric per line, appended, never rewritten.

    A line is `{"t", "seq", "run", "name", "value", "step", "job", "unit", "client", "n"}`: `seq` numbers the file's
    lines, (`client`, `n`) the metrics of each sender, so that a batch that is sent again is known
    by the file alone. NaN and infinities, which JSON lacks, are the strings "NaN", "Infinity" and
    "-Infinity": Python's and JavaScript's number parsers read them back.

    Args:
        path: the file; its lines are kept, a torn last line is cut off, the numbering goes on.
        run_id: name of the run in new lines.

    Attributes:
        path: the file.
        size: length of its whole lines in bytes.
        last: the last value of every metric.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        repair_tail(path)
        self.path = path
        self.last: dict[str, Any] = {}
        self._run = run_id
        self._next = 0
        self._counts: dict[str, int] = {}
        for line in read_events(path):
            if line.keys() >= _LINE:
                self._next = line["seq"] + 1
                self._counts[line["client"]] = line["n"] + 1
                self.last[line["name"]] = from_json(line["value"])
        self._file = path.open("ab", buffering=0)
        self.size = path.stat().st_size

    def append(self, client: str, first: int, metrics: Sequence[Metric]) -> int:
        """Appends those of a client's metrics that the file does not hold yet.

        Args:
            client: name of the sender.
            first: number of `metrics[0]` among all that the client ever sent.
            metrics: consecutive metrics of the client.

        Returns:
            how many were new.

        Raises:
            OSError: they could not be written; the file is as before.
        """
        new = metrics[max(self._counts.get(client, 0) - first, 0) :]
        start = first + len(metrics) - len(new)
        lines = [
            {"t": round(metric.t, 3), "seq": self._next + index, "run": self._run}
            | {"name": metric.name, "value": to_json(metric.value), "step": metric.step}
            | {"job": metric.job, "unit": metric.unit, "client": client, "n": start + index}
            for index, metric in enumerate(new)
        ]
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        append_whole(self._file, data)
        self.size += len(data)
        self._next += len(new)
        if new:
            self._counts[client] = start + len(new)
        self.last.update((metric.name, metric.value) for metric in new)
        return len(new)

    def sync(self) -> None:
        """Returns once everything written is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Syncs and closes the file."""
        self.sync()
        self._file.close()


def to_json(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(value: Any) -> Any:
    """The value that `to_json` was given, at its top level."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
