"""A picture of what model feedback found: the feedback against each statistic whose bounds moved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raysandbox.analysis.numbers import readable, short
from raysandbox.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from raysandbox.refine.model_feedback import FeedbackRefinement, Move

__all__ = ["save_picture"]

_BAR, _LINE, _OLD, _NEW, _GRID, _INK = "#c9d6e5", "#2f6690", "#4a4a4a", "#d1495b", "#e6e6e6", "#2b2b2b"
_BINS = 20


def save_picture(refinement: FeedbackRefinement, name: str, path: Path) -> bool:
    """Draws a panel per operator and statistic that has a new bound.

    Args:
        refinement: what was found.
        name: what the feedback is called.
        path: a PNG file.

    Returns:
        whether there was anything to draw.
    """
    groups: dict[tuple[int, str], list[Move]] = {}
    for move in refinement.moves:
        for key in move.bound.keys:
            groups.setdefault((move.bound.owner, key), []).append(move)
    if not groups:
        return False
    from matplotlib.figure import Figure  # the object interface: no global state, safe in threads

    height = 3.4 * len(groups)
    figure = Figure(figsize=(8.0, height), dpi=100, facecolor="white")
    for row, ((owner, key), moves) in enumerate(groups.items()):
        bottom = (3.4 * (len(groups) - 1 - row) + 0.65) / height
        axes = figure.add_axes((0.1, bottom, 0.62, 2.3 / height))
        _draw(axes, refinement, owner, key, moves, name)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 3})
    return True


def _draw(axes: Axes, refinement: FeedbackRefinement, owner: int, key: str, moves: list[Move], name: str) -> None:
    measured = refinement.filters[owner]
    values, feedback = _pairs(measured.stats[key], refinement.feedback)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)))
    if len(edges) < 3:  # few values: a bin each
        distinct = np.unique(values)
        edges = np.concatenate([distinct, [distinct[-1] + max(distinct[-1] - distinct[0], 1)]])
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(bins, minlength=len(edges) - 1)
    filled = counts > 0
    sums = np.bincount(bins, feedback, minlength=len(counts))[filled]
    squares = np.bincount(bins, feedback**2, minlength=len(counts))[filled]
    means = sums / counts[filled]
    errors = np.sqrt(np.maximum(squares / counts[filled] - means**2, 0) / counts[filled])
    centres = np.bincount(bins, values, minlength=len(counts))[filled] / counts[filled]
    axes.fill_between(centres, means - 1.96 * errors, means + 1.96 * errors, color=_BAR, linewidth=0)
    axes.plot(centres, means, color=_LINE, linewidth=1.6, marker="o", markersize=3.5, label="mean per bin, 95 % CI")
    axes.axhline(
        feedback.mean(), color=_LINE, linewidth=0.8, linestyle=":", label=f"all rows {readable(feedback.mean())}"
    )
    _log_where_crowded(axes, values)
    low, high = axes.get_xlim()
    for move in moves:
        _draw_cuts(axes, move, low, high)
    axes.set_xlim(low, high)
    _style(axes, measured.filter.type_name, key, name)


def _pairs(stats: object, feedback: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of a statistic and the feedback of their rows; of several files per row each counts."""
    rows = stats.to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    pairs = [
        (float(value), loss)
        for row, loss in zip(rows, feedback.tolist(), strict=True)
        for value in (row if isinstance(row, list) else [row])
        if value is not None and np.isfinite(value)
    ]
    table = np.array(pairs, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _log_where_crowded(axes: Axes, values: np.ndarray) -> None:
    positive = values.min() > 0
    if positive and values.max() > 100 * values.min() and np.median(values) < values.min() + 0.1 * np.ptp(values):
        axes.set_xscale("log")


def _draw_cuts(axes: Axes, move: Move, low: float, high: float) -> None:
    """The old bound as a dashed line, the new one as a full one, what lies beyond it shaded."""
    bound = move.bound
    old, new = bound.cuts[bound.old], bound.cuts[move.cut]
    sign = "≥" if bound.side == "lower" else "≤"
    if low <= old <= high:
        axes.axvline(old, color=_OLD, linewidth=1.2, linestyle="--", label=f"old {sign} {readable(old)}")
    else:
        shown = f"old {sign} {readable(old)}, off the picture" if abs(old) < sys.maxsize else "old: no bound"
        axes.plot([], [], color=_OLD, linewidth=1.2, linestyle="--", label=shown)
    axes.axvline(new, color=_NEW, linewidth=1.8, label=f"new {sign} {readable(new)}")
    axes.axvspan(*((low, new) if bound.side == "lower" else (new, high)), color=_NEW, alpha=0.08, linewidth=0)


def _style(axes: Axes, operator: str, key: str, name: str) -> None:
    axes.set_title(operator.replace("$", r"\$"), fontsize=12, loc="left", color=_INK)
    axes.set_xlabel(key.replace("$", r"\$") + (", log scale" if axes.get_xscale() == "log" else ""), fontsize=10)
    axes.set_ylabel(name.replace("$", r"\$"), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.minorticks_off()
    axes.tick_params(labelsize=9)
    axes.legend(fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02))
