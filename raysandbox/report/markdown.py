"""The report of a run as Markdown, with the curves as a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from raysandbox.core.files import atomic_path, atomic_write
from raysandbox.report.summary import Curve, Summary, Table, collect

__all__ = ["markdown_table", "write_report"]

_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def write_report(work_dir: Path) -> Path:
    """Writes `report.md` into the folder of a run.

    Returns:
        the report.
    """
    summary = collect(work_dir)
    status = summary.status
    parts = [f"# {_as_text(work_dir.name)}", _headline(summary)]
    parts += [f"- {_as_text(note)}" for note in status.get("notes", [])]
    parts += [markdown_table(table) for table in summary.tables()]
    pictures = [_plot_curves(summary.curves, work_dir / "artifacts" / "curves.png")] if summary.curves else []
    for kind in ("overview", "contact_sheet"):
        pictures += sorted(work_dir.glob(f"artifacts/**/{kind}.png"))
    for picture in pictures:
        name = picture.relative_to(work_dir)
        parts.append(f"## {name.parent.name}: {name.stem}\n\n![{name.stem}]({name})")
    parts += [_changes(path) for path in sorted(work_dir.glob("artifacts/**/changes.md"))]
    target = work_dir / "report.md"
    atomic_write(target, "\n\n".join(parts) + "\n")
    return target


def _headline(summary: Summary) -> str:
    status = summary.status
    error = f" · {_as_text(status['error'])}" if status.get("error") else ""
    return f"State: **{status.get('state')}**, exit {status.get('exit')}{error}"


def markdown_table(table: Table) -> str:
    """A table with its title as a heading."""
    lines = [
        f"## {table.title}",
        "",
        _row(table.columns),
        _row(["---"] * table.texts + ["---:"] * (len(table.columns) - table.texts)),
    ]
    return "\n".join(lines + [_row(row) for row in table.rows])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_as_text(cell) for cell in cells) + " |"


def _as_text(text: str) -> str:
    """A text of the configuration or the data, which must be neither a tag, a link nor a new cell or line."""
    text = _TAG.sub("&lt;", text.replace("\n", " ").replace("|", "\\|"))
    return text.replace("](", "]\\(")


def _changes(path: Path) -> str:
    return f"## Thresholds changed by {path.parent.name}\n\n{path.read_text(encoding='utf-8').strip()}"


def _plot_curves(curves: Sequence[Curve], target: Path) -> Path:
    from matplotlib.figure import Figure

    columns = min(len(curves), 2)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(6 * columns, 3.2 * rows), layout="constrained")
    for number, curve in enumerate(curves, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.plot(curve.steps, curve.values, linewidth=0.7, alpha=0.45, color="tab:blue", label="each step")
        axes.plot(curve.steps, _smooth(curve.values), linewidth=1.8, color="tab:blue", label="moving mean")
        axes.set_title(curve.name)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=110)
    return target


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving mean with bias correction, over about a twentieth of the curve."""
    decay = 1 - 1 / max(len(values) / 20, 1.0)
    mean, weight, smoothed = 0.0, 0.0, []
    for value in values:
        mean = decay * mean + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        smoothed.append(mean / weight)
    return smoothed
