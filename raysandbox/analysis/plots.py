"""Pictures of an analysis: a histogram per statistic, an overview, correlation heat maps.

Margins are set in inches from the length of the labels: Matplotlib's own layout engines draw every
figure twice to measure it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.analysis.numbers import readable, short
from raysandbox.analysis.summary import Analysis, NumericSummary, TextSummary
from raysandbox.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["save_plots"]

_BAR, _MEAN, _PERCENTILE, _GRID, _INK = "#6f94bd", "#d1495b", "#4a4a4a", "#e6e6e6", "#2b2b2b"
_LABEL_INCHES = 0.066  # width of a character at 8 points
# What the axis says by a statistic's name; the first pattern that is found counts.
_UNITS = (
    (r"ratio|percent", "share"),
    (r"prob|score|similarity", "score"),
    (r"duration", "seconds"),
    (r"width|height", "pixels"),
    (r"num_words?$|word_count", "words"),
    (r"num_token", "tokens"),
    (r"num_|count", "number"),
    (r"size", "bytes"),
    (r"fps|frame_rate", "frames per second"),
    (r"text_len|line_length|_len$|_length$", "characters"),
)

Panel = Callable[["Axes", bool], None]


def save_plots(analysis: Analysis, folder: Path) -> list[Path]:
    """Draws `NAME.png` for every statistic, `overview.png` and `correlation.png`; returns the paths.

    A picture with nothing to show (no values, fewer than two statistics to correlate) is not drawn.
    """
    panels = _panels(analysis)
    figures = {re.sub(r"[^\w.-]+", "_", name): _single(panel) for name, panel in panels.items()}
    if panels:
        figures["overview"] = _overview(analysis, list(panels.values()))
    if len(analysis.correlation.names) > 1:
        figures["correlation"] = _heat_maps(analysis)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        with atomic_path(paths[-1]) as temporary:
            figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 3})
    return paths


def _panels(analysis: Analysis) -> dict[str, Panel]:
    """How to draw each statistic into axes; the second argument asks for the small form."""

    def numbers(name: str, summary: NumericSummary) -> Panel:
        return lambda axes, small: _draw_numbers(axes, name, summary, analysis.percentiles, small=small)

    def text(name: str, summary: TextSummary) -> Panel:
        return lambda axes, small: _draw_text(axes, name, summary, small=small)

    return {name: numbers(name, summary) for name, summary in analysis.numeric.items() if summary.histogram} | {
        name: text(name, summary) for name, summary in analysis.text.items() if summary.top
    }


def _figure(width: float, height: float) -> Figure:
    # The object interface: no global state, no backend to choose, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, facecolor="white")


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the lower left corner."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def _single(panel: Panel) -> Figure:
    figure = _figure(8.0, 4.2)
    panel(_axes(figure, 1.3, 0.65, 4.6, 3.1), False)
    return figure


def _overview(analysis: Analysis, panels: list[Panel]) -> Figure:
    columns = min(4, math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    cell_width, cell_height, header = 3.7, 2.7, 0.5
    figure = _figure(cell_width * columns, cell_height * rows + header)
    for position, panel in enumerate(panels):
        row, column = divmod(position, columns)
        bottom = cell_height * (rows - 1 - row) + 0.55
        panel(_axes(figure, cell_width * column + 0.85, bottom, cell_width - 1.05, cell_height - 0.95), True)
    percentiles = ", ".join(f"{fraction * 100:g}" for fraction in analysis.percentiles)
    header_text = f"{analysis.rows:,} rows    red line: mean    dashed lines: percentiles {percentiles}"
    figure.text(0.01, 1 - 0.32 / (cell_height * rows + header), header_text, fontsize=10, color=_INK)
    return figure


def _style(axes: Axes, title: str, *, small: bool) -> None:
    axes.set_title(_plain(title), fontsize=10 if small else 13, loc="left", color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9a9a9a")
    axes.tick_params(labelsize=8 if small else 9, labelcolor=_INK, color="#9a9a9a")
    axes.set_axisbelow(True)


def _draw_numbers(
    axes: Axes, name: str, summary: NumericSummary, percentiles: tuple[float, ...], *, small: bool
) -> None:
    histogram = summary.histogram
    assert histogram is not None
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=_BAR)
    _style(axes, name, small=small)
    axes.set_xscale(histogram.scale)
    axes.set_yscale("log" if _dwarfed(histogram.counts) else "linear")
    if axes.get_yscale() == "log":
        axes.set_ylim(bottom=0.7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: short(value))
    axes.minorticks_off()
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    lines = [
        axes.axvline(
            value, color=_PERCENTILE, linewidth=1.1, linestyle="--", label=f"{p * 100:g} % ≤ {readable(value)}"
        )
        for p, value in zip(percentiles, summary.percentiles, strict=True)
        if value is not None
    ]
    if summary.mean is not None:
        mean = axes.axvline(summary.mean, color=_MEAN, linewidth=1.8, label=f"mean {readable(summary.mean)}")
        lines.insert(0, mean)
    axes.set_xlabel(_unit(name) + _log_note(axes.get_xscale()), fontsize=8 if small else 10)
    if not small:
        axes.set_ylabel("values per bin" + _log_note(axes.get_yscale()), fontsize=10)
        _legend(axes, summary, lines)


def _legend(axes: Axes, summary: NumericSummary, lines: list[Any]) -> None:
    facts = [
        f"{summary.count:,} values, {summary.missing:,} missing",
        f"min {readable(summary.min)}, max {readable(summary.max)}",
        f"standard deviation {readable(summary.std)}",
    ]
    axes.legend(
        handles=lines,
        title="\n".join(facts),
        title_fontsize=8.5,
        fontsize=8.5,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        alignment="left",
    )


def _draw_text(axes: Axes, name: str, summary: TextSummary, *, small: bool) -> None:
    shown = summary.top[: 5 if small else 10][::-1]
    width = 8 if small else 16
    labels = [_plain(value if len(value) <= width else value[: width - 1] + "…") for value, _ in shown]
    axes.barh(range(len(shown)), [count for _, count in shown], color=_BAR)
    axes.set_yticks(range(len(shown)), labels)
    _style(axes, f"{name} ({summary.distinct:,} distinct)", small=small)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_xlabel("rows", fontsize=8 if small else 10)


def _heat_maps(analysis: Analysis) -> Figure:
    """Pearson and Spearman side by side, with the numbers in the cells."""
    correlation = analysis.correlation
    names = [_plain(name) for name in correlation.names]
    side = max(2.4, 0.42 * len(names))
    margin = 0.35 + _LABEL_INCHES * max(map(len, names))
    figure = _figure(margin + 2 * side + 1.3, side + 0.75 * margin + 0.6)
    bottom = 0.75 * margin
    for title, matrix, left in (
        ("Pearson", correlation.pearson, margin),
        ("Spearman", correlation.spearman, margin + side + 0.25),
    ):
        axes = _axes(figure, left, bottom, side, side)
        cells = [[math.nan if value is None else value for value in row] for row in matrix]
        image = axes.imshow(cells, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axes.set_title(f"{title} correlation", fontsize=12, loc="left", color=_INK)
        ticks = range(len(names))
        axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(ticks, names if title == "Pearson" else [], fontsize=8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        _write_cells(axes, matrix)
        if title == "Spearman":
            figure.colorbar(
                image, cax=_axes(figure, left + side + 0.15, bottom, 0.15, side), ticks=[-1, -0.5, 0, 0.5, 1]
            )
    return figure


def _write_cells(axes: Axes, matrix: tuple[tuple[float | None, ...], ...]) -> None:
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            ink = "white" if value is not None and abs(value) > 0.6 else _INK
            text = "–" if value is None else f"{value:.2f}".replace("-0.00", "0.00")
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def _dwarfed(counts: tuple[int, ...]) -> bool:
    """Whether one bin would flatten the others on a linear axis."""
    filled = sorted(count for count in counts if count)
    return len(filled) > 2 and filled[-1] > 100 * filled[len(filled) // 2]


def _unit(name: str) -> str:
    return next((unit for pattern, unit in _UNITS if re.search(pattern, name)), _plain(name))


def _log_note(scale: str) -> str:
    return ", log scale" if scale == "log" else ""


def _plain(text: str) -> str:
    """Keeps Matplotlib from reading dollar signs as mathematics."""
    return text.replace("$", r"\$")
