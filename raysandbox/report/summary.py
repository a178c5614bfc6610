"""What a run found, read from its folder: jobs, metrics side by side, curves, operators."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from raysandbox.core.events import read_events
from raysandbox.core.files import read_object

if TYPE_CHECKING:
    from raysandbox.analysis.summary import Analysis

__all__ = ["Curve", "Summary", "Table", "analysis_table", "collect", "operator_table", "read_status", "show_number"]

logger = logging.getLogger(__name__)

_COUNTS = frozenset({"name", "rows_in", "rows_out", "failed", "seconds"})
_CURVE_STEPS = 10  # a metric with at least as many steps is a curve, not a score


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what it shows.
        columns: heads of the columns.
        rows: their cells.
        texts: how many columns from the left hold words; the others hold numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True)
class Curve:
    """A metric reported over steps.

    Attributes:
        name: `meta_name.key`.
        steps: the steps.
        values: its value at each.
    """

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    def tenths(self) -> tuple[float, float]:
        """Mean of the first and of the last tenth of the steps."""
        size = max(len(self.values) // 10, 1)
        return fmean(self.values[:size]), fmean(self.values[-size:])


@dataclass(frozen=True)
class Summary:
    """A run in numbers.

    Attributes:
        status: content of `status.json`.
        scores: metric key → job → last value, jobs in the order they reported.
        curves: metrics over steps.
        operators: job → counts of its recipe's operators.
        seconds: job id → how long it took when it last ran.
    """

    status: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float]]
    curves: Sequence[Curve]
    operators: Mapping[str, Sequence[Mapping[str, Any]]]
    seconds: Mapping[str, float]

    def tables(self) -> list[Table]:
        """The tables of the report, those without rows left out."""
        operators = [operator_table(f"Operators of {job}", counts) for job, counts in self.operators.items()]
        tables = [self._jobs(), *operators, self._curves(), self._scores()]
        return [table for table in tables if table.rows]

    def _jobs(self) -> Table:
        jobs = self.status.get("jobs", {})
        rows = tuple(
            (job, state, f"{self.seconds[job]:.1f}" if job in self.seconds else "") for job, state in jobs.items()
        )
        return Table("Jobs", ("job", "state", "seconds"), rows, texts=2)

    def _curves(self) -> Table:
        rows = []
        for curve in self.curves:
            first, last = curve.tenths()
            rows.append(
                (curve.name, str(len(curve.values)), show_number(first), show_number(last), _change(first, last))
            )
        return Table("Curves", ("metric", "steps", "first tenth", "last tenth", "change"), tuple(rows))

    def _scores(self) -> Table:
        jobs = list(dict.fromkeys(job for values in self.scores.values() for job in values))
        rows = []
        for key, values in self.scores.items():
            shown = [show_number(values[job]) if job in values else "" for job in jobs]
            ends = list(values.values())
            rows.append((key, *shown, _change(ends[0], ends[-1]) if len(ends) > 1 else ""))
        return Table("Statistics and scores", ("metric", *jobs, "change"), tuple(rows))


def collect(work_dir: Path) -> Summary:
    """Reads the folder of a run; what is missing is left out.

    A job's numbers are those of its last unit of work, found by its key: what an attempt that did
    not count reported, or another configuration, is passed over, and a job that was taken from its
    marker shows what it reported when it ran.
    """
    status = read_status(work_dir)
    events = list(read_events(work_dir / "journal.jsonl"))
    keys = {event["job"]: event["key"] for event in events if event.get("key")}
    units = {job: keys[job] for job in status.get("jobs", {}) if job in keys}
    found = _metrics(work_dir / "metrics.jsonl")
    labels = _labels([job for job in units if units[job] in found])
    scores: dict[str, dict[str, float]] = {}
    curves = []
    for job, label in labels.items():
        for key, points in found[units[job]].items():
            steps = {step: value for step, value in points if step is not None}
            if len(steps) >= _CURVE_STEPS:
                ordered = sorted(steps)
                curves.append(Curve(f"{label}.{key}", tuple(ordered), tuple(steps[step] for step in ordered)))
            else:
                scores.setdefault(key, {})[label] = points[-1][1]
    return Summary(
        status=status,
        scores=scores,
        curves=curves,
        operators={
            path.parent.name: counts
            for path in sorted(work_dir.glob("artifacts/**/operators.json"))
            if (counts := _operator_counts(path))
        },
        seconds={event["job"]: event["seconds"] for event in events if event["event"] == "job_done"},
    )


_Points = list[tuple[int | None, float]]


def _metrics(path: Path) -> dict[str, dict[str, _Points]]:
    """Numbers by unit of work and key, in the order they were reported."""
    found: dict[str, dict[str, _Points]] = {}
    for event in read_events(path):
        if event.get("unit") and isinstance(event["value"], int | float):
            key = str(event["name"]).removeprefix(f"{_short(event['job'])}.")
            found.setdefault(event["unit"], {}).setdefault(key, []).append((event["step"], float(event["value"])))
    return found


def _short(job: str) -> str:
    """The meta_name in `pipeline.meta_name#index`, or the hook that stands in for it."""
    return job.partition(".")[2].rpartition("#")[0]


def _labels(jobs: Sequence[str]) -> dict[str, str]:
    """What to call each job: its meta_name, or its id where jobs share it."""
    counts = Counter(_short(job) for job in jobs)
    return {job: _short(job) if counts[_short(job)] == 1 else job.removeprefix("anonymous.") for job in jobs}


def read_status(work_dir: Path) -> Mapping[str, Any]:
    """Content of `status.json`; what tells nothing is left out, and a damaged file is named in its `error`."""
    path = work_dir / "status.json"
    status = read_object(path)
    if path.exists() and not isinstance(status.get("jobs"), dict):
        logger.warning("%s is damaged, and is left out; a run with --resume makes it again", path)
        return {"error": f"{path} is damaged"}
    notes = status.get("notes")
    return {**status, "notes": notes if isinstance(notes, list) else []}


def _operator_counts(path: Path) -> Sequence[Mapping[str, Any]]:
    """What operators did; none where the file is damaged, which is said."""
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
        if all(count.keys() >= _COUNTS for count in counts):
            return counts
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # named below
    logger.warning("%s is damaged, and is left out", path)
    return ()


def operator_table(title: str, counts: Sequence[Mapping[str, Any]]) -> Table:
    """Rows in, dropped, kept and failed of every operator of a recipe, in the executed order."""
    rows = tuple(
        (
            str(count["name"]),
            f"{count['rows_in']:,}",
            f"{count['rows_in'] - count['rows_out'] - count['failed']:,}",
            f"{count['rows_out']:,}",
            f"{count['failed']:,}",
            f"{count['seconds']:.2f}",
        )
        for count in counts
    )
    return Table(title, ("operator", "rows in", "dropped", "kept", "failed", "seconds"), rows)


def analysis_table(analysis: Analysis) -> Table:
    """Count, mean, deviation and range of every numeric statistic."""
    rows = tuple(
        (name, f"{s.count:,}", *(show_number(value) for value in (s.mean, s.std, s.min, s.max)))
        for name, s in analysis.numeric.items()
    )
    return Table("Statistics", ("statistic", "count", "mean", "std", "min", "max"), rows)


def show_number(value: float | None) -> str:
    """A number as a person reads it: four significant digits, whole numbers whole, None empty."""
    if value is None:
        return ""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:#.4g}"


def _change(first: float, last: float) -> str:
    if not (math.isfinite(first) and math.isfinite(last)):
        return ""
    return f"{(last - first) / abs(first):+.1%}" if first else f"{last - first:+.4g}"
