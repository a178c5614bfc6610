"""Pictures of a search: the metric over the trials, parallel coordinates, importance of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raysandbox.analysis.numbers import readable
from raysandbox.core.files import atomic_path, remove
from raysandbox.report.axes import Column
from raysandbox.report.search_data import SearchSummary, has_value
from raysandbox.sandbox.trials import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

__all__ = ["best_so_far", "save_search_plots"]

# Okabe and Ito's colours, which people with any kind of colour blindness tell apart.
_BLUE, _ORANGE, _RED, _GREY, _INK = "#0072b2", "#e69f00", "#d55e00", "#8c8c8c", "#2b2b2b"
_MOST_AXES = 14
_LONGEST = 26


def save_search_plots(summary: SearchSummary, folder: Path) -> list[Path]:
    """Draws `history.png`, `parallel_coordinates.png` and `importance.png`; returns the paths.

    One with nothing to show is not drawn, and removed where it stands from before.
    """
    figures = {
        "history": _history(summary) if summary.trials else None,
        "parallel_coordinates": _parallel(summary) if summary.columns and summary.best else None,
        "importance": _importance(summary) if summary.importance.shares else None,
    }
    paths = []
    for name, figure in figures.items():
        target = folder / f"{name}.png"
        if figure is None:
            remove(target)
            continue
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 3})
        paths.append(target)
    return paths


def best_so_far(summary: SearchSummary) -> list[tuple[int, float]]:
    """Number of a trial that is done and the best value up to it, in the order of the numbers."""
    better = max if summary.goal == "maximize" else min
    steps: list[tuple[int, float]] = []
    for trial in summary.trials:
        if trial.state == "done" and has_value(trial):
            value = float(trial.value or 0.0)
            steps.append((trial.number, better(value, steps[-1][1]) if steps else value))
    return steps


def _figure(width: float, height: float) -> Figure:
    # The object interface: no global state, no backend to choose, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")


def _style(axes: Axes, title: str) -> None:
    axes.set_title(_plain(title), fontsize=12, loc="left", color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9a9a9a")
    axes.tick_params(labelsize=9, labelcolor=_INK, color="#9a9a9a")
    axes.set_axisbelow(True)


def _history(summary: SearchSummary) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure = _figure(8.5, 4.4)
    axes = figure.add_subplot()
    size = 34 if len(summary.trials) <= 100 else 14
    groups = [("done", "o", _BLUE), ("stopped", "^", _ORANGE)]
    for state, marker, color in groups:
        shown = [trial for trial in summary.trials if trial.state == state and has_value(trial)]
        if shown:
            x, y = [trial.number for trial in shown], [float(trial.value or 0.0) for trial in shown]
            label = f"{state} ({len(shown)})"
            axes.scatter(x, y, s=size, marker=marker, color=color, edgecolors="white", linewidths=0.4, label=label)
    steps = best_so_far(summary)
    if steps:
        x = [number for number, _ in steps] + [summary.trials[-1].number]
        y = [value for _, value in steps] + [steps[-1][1]]
        axes.plot(x, y, drawstyle="steps-post", color=_INK, linewidth=1.4, label="best so far", zorder=1)
    _style(axes, f"{summary.name}: {summary.metric} ({summary.goal})")
    axes.set_yscale(summary.value_column.scale)
    _mark_failed(axes, summary, size)
    if summary.target is not None:
        axes.axhline(
            summary.target, color=_GREY, linestyle="--", linewidth=1, label=f"target {readable(summary.target)}"
        )
    axes.set_xlabel("trial")
    axes.set_ylabel(_plain(_cut(summary.metric)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _mark_failed(axes: Axes, summary: SearchSummary, size: float) -> None:
    """Trials without a value, at the foot of the picture."""
    without = [trial for trial in summary.trials if trial.state != "running" and not has_value(trial)]
    running = [trial for trial in summary.trials if trial.state == "running"]
    for trials, marker, color, name in ((without, "x", _RED, "failed"), (running, "|", _GREY, "running")):
        if trials:
            foot = [0.03] * len(trials)
            axes.scatter(
                [trial.number for trial in trials],
                foot,
                s=size,
                marker=marker,
                color=color,
                linewidths=1.4,
                transform=axes.get_xaxis_transform(),
                label=f"{name} ({len(trials)})",
                clip_on=False,
            )


def _parallel(summary: SearchSummary) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    columns = _shown_columns(summary)
    value = summary.value_column
    figure = _figure(max(7.0, 1.35 * (len(columns) + 2) + 1.0), 5.2)
    axes = figure.add_subplot()
    norm = (LogNorm if value.scale == "log" else Normalize)(value.low, value.high)
    shades = ScalarMappable(norm, "viridis")
    _draw_lines(axes, summary, columns, shades)
    for place, column in enumerate([*columns, value]):
        _draw_axis(axes, place, column)
    left = len(summary.columns) - len(columns)
    more = f", {left} less important parameters left out" if left else ""
    axes.set_title(
        _plain(f"{summary.name}: parameters and {summary.metric}{more}"), fontsize=12, loc="left", color=_INK
    )
    axes.set_xticks(range(len(columns) + 1), [_plain(_cut(c.label)) for c in [*columns, value]], fontsize=9)
    if len(columns) > 3:
        for label in axes.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(columns) + 0.35)
    axes.set_ylim(-0.03, 1.03)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=6)
    bar = figure.colorbar(shades, ax=axes, pad=0.02, fraction=0.03)
    bar.set_label(_plain(f"{_cut(summary.metric)} ({'higher' if summary.goal == 'maximize' else 'lower'} is better)"))
    bar.ax.tick_params(labelsize=8)
    axes.legend(fontsize=9, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    return figure


def _shown_columns(summary: SearchSummary) -> list[Column]:
    """All parameters that vary, or the most important of too many."""
    shares = summary.importance.shares
    chosen = sorted(summary.columns, key=lambda column: -shares.get(column.name, 0.0))[:_MOST_AXES]
    return [column for column in summary.columns if column in chosen]


def _draw_lines(axes: Axes, summary: SearchSummary, columns: Sequence[Column], shades: ScalarMappable) -> None:
    with_value = [trial for trial in reversed(summary.ranked) if has_value(trial)]
    alpha = min(0.9, max(0.12, 60 / (len(with_value) + 1)))
    for trial in summary.trials:
        if not has_value(trial) and trial.state != "running":
            x, y = _path(trial, columns, None)
            axes.plot(x, y, color=_RED, linestyle=":", linewidth=0.9, alpha=0.6, marker="x", markevery=[-1], zorder=2)
    colours = shades.to_rgba(np.array([trial.value for trial in with_value], dtype=float))
    for trial, colour in zip(with_value, colours, strict=True):
        x, y = _path(trial, columns, summary.value_column)
        axes.plot(x, y, color=colour, linewidth=1.2, alpha=alpha, zorder=3)
    best = summary.best
    assert best is not None
    x, y = _path(best, columns, summary.value_column)
    axes.plot(x, y, color="black", linewidth=2.6, zorder=4, label=f"best: trial {best.name}")
    if len(with_value) < len(summary.trials) and summary.counts.get("failed"):
        axes.plot([], [], color=_RED, linestyle=":", marker="x", label=f"failed ({summary.counts['failed']})")


def _path(trial: TrialRecord, columns: Sequence[Column], value: Column | None) -> tuple[list[int], list[float]]:
    """Where a trial's line goes, to its metric with `value`; broken where a value is not on its axis."""
    end = None if value is None else value.position(trial.value)
    places = [column.place(trial.params.get(column.name), end) for column in columns]
    places += [] if value is None else [end]
    return list(range(len(places))), [math.nan if place is None else place for place in places]


def _draw_axis(axes: Axes, place: int, column: Column) -> None:
    axes.plot([place, place], [0, 1], color=_INK, linewidth=1.1, zorder=5)
    for position, text in _spread(column.ticks()):
        axes.plot([place - 0.02, place], [position, position], color=_INK, linewidth=1, zorder=5)
        box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.text(place + 0.03, position, _plain(_cut(text)), fontsize=8, va="center", color=_INK, zorder=6, bbox=box)


def _spread(ticks: Sequence[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """The ticks that do not lie on the one before."""
    last = -math.inf
    for position, text in ticks:
        if position - last > 0.03:
            last = position
            yield position, text


def _importance(summary: SearchSummary) -> Figure:
    names = list(summary.importance.shares)[:_MOST_AXES]
    shares = [summary.importance.shares[name] for name in names]
    figure = _figure(7.5, 1.4 + 0.36 * len(names))
    axes = figure.add_subplot()
    places = range(len(names))[::-1]
    axes.barh(places, shares, color=_BLUE, height=0.62)
    for place, share in zip(places, shares, strict=True):
        axes.text(share + 0.01, place, f"{share:.1%}", va="center", fontsize=9, color=_INK)
    axes.set_yticks(places, [_plain(_cut(name, 44)) for name in names])
    _style(axes, f"Importance for {summary.metric}")
    axes.set_xlim(0, max(shares) * 1.15 + 0.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"share of the variance, {summary.importance.note}", fontsize=9)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    return figure


def _cut(text: str, longest: int = _LONGEST) -> str:
    """The end of a long name: that is where names differ."""
    return text if len(text) <= longest else "…" + text[-longest + 1 :]


def _plain(text: str) -> str:
    """Keeps Matplotlib from reading dollar signs as mathematics."""
    return text.replace("$", r"\$")
