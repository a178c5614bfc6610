"""The report of a search: tables for the console, `trials.csv`, pictures, an interactive page, `report.md`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_path, atomic_write
from raysandbox.report.axes import show_value
from raysandbox.report.markdown import markdown_table
from raysandbox.report.search_data import (
    SEARCH_FOLDER,
    SearchSummary,
    best_trial,
    collect_search,
    has_value,
    to_json_cell,
)
from raysandbox.report.search_page import write_search_page
from raysandbox.report.search_plots import save_search_plots
from raysandbox.report.summary import Table, show_number
from raysandbox.sandbox.trials import TRIALS_FOLDER, TrialRecord

__all__ = ["SEARCH_FOLDER", "SearchSummary", "best_trial", "collect_search", "search_tables", "write_search_report"]

_TOP = 10
_MOST_COLUMNS = 6  # more parameters than that share one column
_REASON_LENGTH = 300
_STATES = ("done", "stopped", "failed", "running")
_FIXED = ("trial", "state", "value")
_MORE = ("point", "seed", "seconds", "attempts", "jobs_cached", "jobs", "reason")
_TITLES = {
    "history": "Metric of each trial",
    "parallel_coordinates": "Parameters and metric",
    "importance": "Importance of parameters",
}


def search_tables(work_dir: Path) -> list[Table]:
    """The tables of a search for the console, those without rows left out."""
    return tables_of(collect_search(work_dir))


def tables_of(summary: SearchSummary) -> list[Table]:
    """The tables of a search, those without rows left out."""
    tables = [_best_trials(summary), _points(summary), _counts(summary), _failed(summary), _importance(summary)]
    return [table for table in tables if table.rows]


def write_search_report(work_dir: Path) -> Path:
    """Writes all that a search leaves for people: may be called at any time, also while it runs.

    `trials.csv`, `artifacts/search/*.png`, `artifacts/search/search.html` and `report.md`.

    Returns:
        the report.
    """
    summary = collect_search(work_dir)
    _write_csv(summary, work_dir / "trials.csv")
    pictures = save_search_plots(summary, work_dir / SEARCH_FOLDER)
    page = write_search_page(summary, work_dir / SEARCH_FOLDER / "search.html")
    parts = [f"# {_plain(summary.name)}", headline(summary)]
    parts += [f"- {_plain(note)}" for note in summary.status.get("notes", [])]
    parts += _best(summary, work_dir)
    parts += [markdown_table(_escaped(table)) for table in tables_of(summary)]
    if not summary.importance.shares:
        parts.append(f"No importance of parameters: {summary.importance.note}.")
    for picture in pictures:
        parts.append(f"## {_TITLES[picture.stem]}\n\n![{_TITLES[picture.stem]}]({picture.relative_to(work_dir)})")
    parts.append(f"All trials: [trials.csv](trials.csv) · interactive: [{page.name}]({page.relative_to(work_dir)})")
    target = work_dir / "report.md"
    atomic_write(target, "\n\n".join(parts) + "\n")
    return target


def headline(summary: SearchSummary) -> str:
    """State, number of trials and goal in a line."""
    counts = ", ".join(f"{summary.counts[state]} {state}" for state in _STATES if summary.counts.get(state))
    of = f" of {summary.planned}" if summary.planned is not None else ""
    state = summary.status.get("state")
    error = f" · {_plain(str(summary.status['error']))}" if summary.status.get("error") else ""
    shown = f"State: **{state}**, exit {summary.status.get('exit')}{error} · " if state else ""
    goal = f"{summary.goal} `{summary.metric}`" + (f" ({summary.method})" if summary.method else "")
    return f"{shown}{len(summary.trials)}{of} trials{f' ({counts})' if counts else ''} · {goal}"


def _best(summary: SearchSummary, work_dir: Path) -> list[str]:
    best = summary.best
    if best is None:
        return ["No trial has a value of the metric yet." if summary.trials else "No trial has started yet."]
    lines = [f"## Best trial: {best.name}\n", f"`{summary.metric}` = **{show_number(best.value)}**"]
    point = next((point for point in summary.points if point.number == best.point), None)
    if summary.repeated and point is not None:
        lines[1] += f"; its point: {_mean(point.mean, point.error)} over {len(point.values)} repeats"
    if best.state == "stopped":
        lines[1] += f"; it was stopped ({_plain(best.reason)}), no trial is done"
    rows = [(name, show_value(value)) for name, value in best.params.items()]
    rows += [("seed", str(best.seed))] if best.seed is not None else []
    table = markdown_table(_escaped(Table("", ("parameter", "value"), tuple(rows), texts=1)))
    lines.append("\n" + table.split("\n\n", 1)[1])
    ready = "ready to run: [best_config.yaml](best_config.yaml) · " if (work_dir / "best_config.yaml").exists() else ""
    lines.append(f"\n{ready}folder: [{TRIALS_FOLDER}/{best.name}]({TRIALS_FOLDER}/{best.name})")
    return ["\n".join(lines)]


def _best_trials(summary: SearchSummary) -> Table:
    shown = [trial for trial in summary.ranked if has_value(trial) and trial.state in ("done", "stopped")][:_TOP]
    heads, cells = _parameter_cells(summary)
    seed = ("seed",) if summary.repeated else ()
    rows = tuple(
        (
            trial.name,
            trial.state,
            *cells(trial.params),
            *((str(trial.seed),) if seed else ()),
            show_number(trial.value),
            f"{trial.seconds:.1f}",
            f"{trial.cached[0]} of {trial.cached[1]}",
        )
        for trial in shown
    )
    columns = ("trial", "state", *heads, *seed, summary.metric, "seconds", "jobs cached")
    title = f"Best {len(shown)} of {len(summary.trials)} trials by {summary.metric} ({summary.goal})"
    return Table(title, columns, rows, texts=2 if len(summary.columns) <= _MOST_COLUMNS else 3)


def _points(summary: SearchSummary) -> Table:
    """Points over their repeats; without repeats the trials say it all."""
    points = summary.points[:_TOP] if summary.repeated else ()
    heads, cells = _parameter_cells(summary)
    rows = tuple(
        (
            str(point.number),
            *cells(point.params),
            _mean(point.mean, point.error),
            f"{len(point.values)} of {summary.seeds}",
        )
        for point in points
    )
    columns = ("point", *heads, f"{summary.metric}: mean ± standard error", "repeats done")
    return Table(f"Best {len(points)} points over their repeats", columns, rows, texts=1)


def _parameter_cells(summary: SearchSummary) -> tuple[tuple[str, ...], Any]:
    """Heads and a function that makes the cells of the parameters that vary."""
    columns = summary.columns
    if len(columns) <= _MOST_COLUMNS:
        return tuple(column.label for column in columns), lambda params: tuple(
            show_value(params.get(column.name)) for column in columns
        )
    return ("parameters",), lambda params: (
        ", ".join(f"{column.label}={show_value(params.get(column.name))}" for column in columns),
    )


def _counts(summary: SearchSummary) -> Table:
    rows = []
    for state in _STATES:
        trials = [trial for trial in summary.trials if trial.state == state]
        cached, jobs = (sum(trial.cached[index] for trial in trials) for index in (0, 1))
        seconds = sum(trial.seconds for trial in trials)
        if trials:
            rows.append((state, str(len(trials)), f"{seconds:.1f}", f"{cached} of {jobs}"))
    return Table("Trials by state", ("state", "trials", "seconds", "jobs cached"), tuple(rows))


def _failed(summary: SearchSummary) -> Table:
    failed = [trial for trial in summary.trials if trial.state == "failed"]
    rows = tuple(
        (trial.name, _one_line(trial.reason) or "no reason was noted", str(trial.attempts)) for trial in failed
    )
    return Table("Failed trials", ("trial", "reason", "attempts"), rows, texts=2)


def _importance(summary: SearchSummary) -> Table:
    rows = tuple((name, f"{share:.1%}") for name, share in summary.importance.shares.items())
    return Table(f"Importance of parameters, {summary.importance.note}", ("parameter", "share of variance"), rows)


def _mean(mean: float, error: float | None) -> str:
    return show_number(mean) + (f" ± {error:.2g}" if error is not None else "")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else line[: _REASON_LENGTH - 1] + "…"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, with nothing in it that a page would run."""
    return _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escaped(table: Table) -> Table:
    return Table(
        _plain(table.title),
        tuple(map(_plain, table.columns)),
        tuple(tuple(map(_plain, row)) for row in table.rows),
        table.texts,
    )


def _write_csv(summary: SearchSummary, target: Path) -> None:
    """One row per trial; a parameter or metric whose name is taken gets `param.` or `metric.` before it."""
    metrics = list(dict.fromkeys(name for trial in summary.trials for name in trial.metrics))
    parameters = _unlike(summary.parameters, {*_FIXED, *_MORE}, "param")
    others = _unlike(metrics, {*_FIXED, *_MORE, *parameters.values()}, "metric")
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_FIXED, *parameters.values(), *_MORE, *others.values()])
        for trial in summary.trials:
            values = [to_json_cell(trial.params.get(name)) for name in parameters]
            last = [to_json_cell(trial.metrics.get(name)) for name in others]
            writer.writerow([trial.name, trial.state, trial.value, *values, *_more(trial), *last])


def _more(trial: TrialRecord) -> Sequence[Any]:
    seconds = round(trial.seconds, 3)
    return (trial.point, trial.seed, seconds, trial.attempts, trial.cached[0], trial.cached[1], trial.reason)


def _unlike(names: Iterable[str], taken: set[str], prefix: str) -> Mapping[str, str]:
    return {name: f"{prefix}.{name}" if name in taken else name for name in names}
