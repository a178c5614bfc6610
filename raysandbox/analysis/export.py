"""Writes an analysis as files for programs (JSON, CSV) and for people (Markdown, plots)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from raysandbox.analysis.numbers import percentile_label, readable
from raysandbox.analysis.plots import save_plots
from raysandbox.analysis.summary import Analysis
from raysandbox.core.files import atomic_write

__all__ = ["load", "save"]

_FILE = "analysis.json"


def save(analysis: Analysis, folder: Path) -> list[Path]:
    """Writes an analysis below a folder; each file appears whole or not at all.

    Returns:
        `analysis.json`, `overall.csv` (Data-Juicer's layout: one column per statistic),
        `overall.md`, `correlation.csv`, and the plots.
    """
    texts = {
        folder / _FILE: analysis.to_json(),
        folder / "overall.csv": _overall_csv(analysis),
        folder / "overall.md": _overall_markdown(analysis),
        folder / "correlation.csv": _correlation_csv(analysis),
    }
    for path, text in texts.items():
        atomic_write(path, text)
    return [*texts, *save_plots(analysis, folder)]


def load(folder: Path) -> Analysis:
    """Reads the analysis that `save` wrote below a folder."""
    return Analysis.from_json((folder / _FILE).read_text(encoding="utf-8"))


def _overall_csv(analysis: Analysis) -> str:
    labels = [percentile_label(fraction) for fraction in analysis.percentiles]
    header = ["", *analysis.numeric, *analysis.text]
    columns = [
        {
            "count": numbers.count,
            "missing": numbers.missing,
            "mean": numbers.mean,
            "std": numbers.std,
            "min": numbers.min,
            **dict(zip(labels, numbers.percentiles, strict=True)),
            "max": numbers.max,
        }
        for numbers in analysis.numeric.values()
    ] + [
        {
            "count": text.count,
            "missing": text.missing,
            "unique": text.distinct,
            "top": text.top[0][0] if text.top else None,
            "freq": text.top[0][1] if text.top else None,
        }
        for text in analysis.text.values()
    ]
    measures = ["count", "missing", "unique", "top", "freq", "mean", "std", "min", *labels, "max"]
    return _csv([header, *([measure, *(column.get(measure) for column in columns)] for measure in measures)])


def _correlation_csv(analysis: Analysis) -> str:
    correlation = analysis.correlation
    rows = [
        [method, name, *values]
        for method, matrix in (("pearson", correlation.pearson), ("spearman", correlation.spearman))
        for name, values in zip(correlation.names, matrix, strict=True)
    ]
    return _csv([["method", "statistic", *correlation.names], *rows])


def _csv(rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _overall_markdown(analysis: Analysis) -> str:
    labels = [percentile_label(fraction) for fraction in analysis.percentiles]
    parts = [f"# Statistics of {analysis.rows:,} rows"]
    if analysis.numeric:
        header = ["statistic", "count", "missing", "mean", "std", "min", *labels, "max"]
        rows = []
        for name, numbers in analysis.numeric.items():
            measures = (numbers.mean, numbers.std, numbers.min, *numbers.percentiles, numbers.max)
            rows.append([name, f"{numbers.count:,}", f"{numbers.missing:,}", *map(readable, measures)])
        parts.append(_table(header, rows))
    if analysis.text:
        rows = []
        for name, text in analysis.text.items():
            frequent = ", ".join(f"{value} ({count:,})" for value, count in text.top[:5])
            rows.append([name, f"{text.count:,}", f"{text.missing:,}", f"{text.distinct:,}", frequent])
        parts.append(_table(["statistic", "count", "missing", "distinct", "most frequent"], rows))
    if analysis.ignored:
        parts.append(f"Neither numbers nor text, not summarised: {', '.join(analysis.ignored)}.")
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned as plain text; all columns but the first to the right."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    lines = [
        " | ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in cells
    ]
    rule = " | ".join(["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "\n".join(f"| {line} |" for line in (lines[0], rule, *lines[1:]))
