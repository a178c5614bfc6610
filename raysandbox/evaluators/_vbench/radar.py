"""A radar plot of the sixteen dimensions beside published models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from raysandbox.core.files import atomic_path
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS, PUBLISHED
from raysandbox.evaluators._vbench.scores import normalised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

__all__ = ["radar_figure", "save_radar"]

_PUBLISHED_COLOURS = ("#9a9a9a", "#6f94bd", "#8fb98f")
_OWN_COLOUR = "#d1495b"


def save_radar(scores: Mapping[str, float], name: str, path: Path) -> None:
    """Draws `radar_figure` into a PNG file."""
    with atomic_path(path) as temporary:
        radar_figure(scores, name).savefig(temporary, format="png", dpi=110)


def radar_figure(scores: Mapping[str, float], name: str) -> Figure:
    """Raw scores (0 to 1) by dimension and the published rows, each on the leaderboard's scale in per cent.

    A dimension without a score leaves a gap.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.5), layout="constrained")
    axes = cast("PolarAxes", figure.add_subplot(projection="polar"))
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    angles = [2 * math.pi * position / len(DIMENSIONS) for position in range(len(DIMENSIONS))]
    for (label, row), colour in zip(PUBLISHED.items(), _PUBLISHED_COLOURS, strict=True):
        published = {dimension: value / 100 for dimension, value in zip(DIMENSIONS, row, strict=True)}
        _draw(axes, angles, published, label, colour, width=1.0)
    _draw(axes, angles, scores, name, _OWN_COLOUR, width=2.0)
    axes.set_xticks(angles, [dimension.replace("_", "\n") for dimension in DIMENSIONS], fontsize=8)
    axes.tick_params(axis="x", pad=14)
    axes.set_ylim(0, 100)
    axes.set_rlabel_position(180 / len(DIMENSIONS))  # between two dimensions
    axes.tick_params(axis="y", labelsize=8, labelcolor="#6a6a6a")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.08), frameon=False, fontsize=9)
    axes.set_title("VBench, leaderboard scale (%)", fontsize=11, pad=18)
    return figure


def _draw(
    axes: Axes, angles: Sequence[float], scores: Mapping[str, float], label: str, colour: str, width: float
) -> None:
    values = [
        100 * min(max(normalised(dimension, scores[dimension]), 0.0), 1.0) if dimension in scores else math.nan
        for dimension in DIMENSIONS
    ]
    axes.plot(
        [*angles, angles[0]], [*values, values[0]], label=label, color=colour, linewidth=width, marker="o", markersize=3
    )
