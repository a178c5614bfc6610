"""Numbers for people to read."""

from __future__ import annotations

__all__ = ["percentile_label", "readable", "short"]


def readable(value: float | None) -> str:
    """Four significant digits, thousands separated: 1234567.8 → "1,234,568", 0.12345 → "0.1235"."""
    if value is None:
        return "–"
    if abs(value) < 1e15 and (abs(value) >= 1000 or value == round(value)):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def short(value: float) -> str:
    """For the ticks of an axis: 20000 → "20k"."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def percentile_label(fraction: float) -> str:
    """0.25 → "25%"."""
    return f"{fraction * 100:g}%"
