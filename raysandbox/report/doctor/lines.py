"""Lines of the doctor's table: states, what they add up to, how many nodes share one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["MARKS", "Line", "State", "as_json", "gigabytes", "overview", "status_of", "together"]

State = Literal["green", "yellow", "red", "note"]
SCHEMA = 1  # of the JSON; grows when a key goes or changes its meaning

MARKS = {"green": "✓", "yellow": "!", "red": "✗", "note": "·"}


@dataclass(frozen=True)
class Line:
    """One finding.

    Attributes:
        group: heading that it stands under.
        what: what was looked at.
        state: green, yellow (works, but look at it), red (does not work, or is not safe); a note is neither: what
            is not there and nobody asked for.
        found: what was found.
        fix: what to do.
        node: of which node of the cluster; "" for this machine or the whole.
    """

    group: str
    what: str
    state: State
    found: str
    fix: str = ""
    node: str = ""


def status_of(lines: Iterable[Line], *, strict: bool = False) -> int:
    """Exit status: 1 with anything red, or yellow where that counts as well; else 0."""
    states = {line.state for line in lines}
    return int("red" in states or (strict and "yellow" in states))


def overview(lines: Sequence[Line]) -> str:
    """The last line: how many of each state, and what is red."""
    counts = _counts(lines)
    red = list(dict.fromkeys(line.what for line in lines if line.state == "red"))
    named = f" ({', '.join(red[:5])}{', …' if len(red) > 5 else ''})" if red else ""
    return f"{counts['green']} green, {counts['yellow']} yellow, {counts['red']} red{named}"


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """For machines: `schema`, `state` (the worst), `counts`, `lines`."""
    counts = _counts(lines)
    worst = next((state for state in ("red", "yellow") if counts[state]), "green")
    return {"schema": SCHEMA, "state": worst, "counts": counts, "lines": [asdict(line) for line in lines]}


def together(lines: Sequence[Line]) -> list[Line]:
    """Lines for people: those of several nodes that say the same are one, and all that is green of one kind."""
    found: dict[Any, list[Line]] = {}
    for line in lines:
        quiet = line.state in ("green", "note")
        key = (line.group, line.what, line.state) if quiet and line.node else (line.group, line.what, line)
        if not quiet and line.node:
            key = (line.group, line.what, line.state, line.found, line.fix)
        found.setdefault(key, []).append(line)
    return [_one(lines) for lines in found.values()]


def gigabytes(size: float) -> str:
    """Bytes as GiB: `0.4 GiB`, `12 GiB`."""
    value = size / 2**30
    return f"{value:.1f} GiB" if value < 10 else f"{value:,.0f} GiB"


def _one(lines: Sequence[Line]) -> Line:
    first = lines[0]
    if len(lines) == 1:
        return first
    nodes = ", ".join(line.node for line in lines[:4]) + (f" and {len(lines) - 4} more" if len(lines) > 4 else "")
    texts = list(dict.fromkeys(line.found for line in lines))
    found = texts[0] if len(texts) == 1 else f"{texts[0]} … {texts[-1]}"
    return Line(first.group, first.what, first.state, found, first.fix, f"{len(lines)} nodes: {nodes}")


def _counts(lines: Iterable[Line]) -> dict[str, int]:
    counts: dict[str, int] = dict.fromkeys(("green", "yellow", "red", "note"), 0)
    for line in lines:
        counts[line.state] += 1
    return counts
