"""The interactive page of a search: one file that loads nothing from anywhere."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_write
from raysandbox.report.axes import Column, show_value
from raysandbox.report.search_data import SearchSummary, has_value
from raysandbox.report.summary import show_number

__all__ = ["write_search_page"]


def write_search_page(summary: SearchSummary, target: Path) -> Path:
    """Writes parallel coordinates, history, importance and the table of all trials.

    The numbers are data in the page, not code: the script puts every text into the document as text.
    """
    template = files("raysandbox.report").joinpath("search_page.html").read_text(encoding="utf-8")
    data = json.dumps(_page_data(summary), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":  # nothing in it can end the element that holds it
        data = data.replace(character, f"\\u{ord(character):04x}")
    before, between, after = template.replace("{title}", html.escape(summary.name)).partition("{data}")
    assert between
    atomic_write(target, before + data + after)
    return target


def _page_data(summary: SearchSummary) -> dict[str, Any]:
    best = summary.best
    importance = summary.importance
    return {
        "name": summary.name,
        "metric": summary.metric,
        "goal": summary.goal,
        "method": summary.method,
        "planned": summary.planned,
        "best": None if best is None else best.number,
        "columns": [_column_data(column) for column in summary.columns],
        "value": _column_data(summary.value_column),
        "target": None if summary.target is None else summary.value_column.position(summary.target),
        "constants": {
            name: show_value(summary.trials[0].params.get(name))
            for name in summary.parameters
            if summary.trials and name not in {column.name for column in summary.columns}
        },
        "importance": {"note": importance.note, "shares": list(importance.shares.items())},
        "trials": [_trial_data(summary, number) for number in range(len(summary.trials))],
    }


def _column_data(column: Column) -> dict[str, Any]:
    return {"name": column.name, "label": column.label, "ticks": column.ticks()}


def _trial_data(summary: SearchSummary, index: int) -> dict[str, Any]:
    trial = summary.trials[index]
    value = float(trial.value or 0.0) if has_value(trial) else None
    end = None if value is None else summary.value_column.position(value)
    places = [column.place(trial.params.get(column.name), end) for column in summary.columns]
    sortable = [_sortable(trial.params.get(column.name)) for column in summary.columns]
    return {
        "name": trial.name,
        "number": trial.number,
        "state": trial.state,
        "value": value,
        "shown": show_number(value),
        "place": end,
        "places": [None if place is None else round(place, 5) for place in places],
        "texts": [show_value(trial.params.get(column.name)) for column in summary.columns],
        "sort": sortable,
        "seed": trial.seed,
        "seconds": round(trial.seconds, 1),
        "cached": list(trial.cached),
        "attempts": trial.attempts,
        "reason": trial.reason,
    }


def _sortable(value: Any) -> float | str:
    if isinstance(value, int | float) and value == value and abs(value) != float("inf"):
        return float(value)
    return show_value(value)
