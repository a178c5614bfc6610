"""How `raysandbox doctor` draws its findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from raysandbox.cli.console import console
from raysandbox.core.redact import redact_text

if TYPE_CHECKING:
    from raysandbox.report.doctor.lines import Line

__all__ = ["print_lines"]

# The order in which groups are shown: from what is nearest to what is wanted.
_GROUPS = (
    "machine",
    "disks",
    "GPUs",
    "versions",
    "installation",
    "security",
    "nodes",
    "network",
    "storage",
    "configuration",
)
_STYLES = {"green": "green", "yellow": "yellow", "red": "bold red", "note": "dim"}


def print_lines(lines: Sequence[Line], overview: str) -> None:
    """Prints findings by group, and what they add up to."""
    from raysandbox.report.doctor.lines import MARKS

    table = Table(title="doctor", title_justify="left", header_style="bold")
    several = any(line.node for line in lines)
    for column in ("group", "what", "state", *(["node"] if several else []), "found", "fix"):
        table.add_column(column, overflow="fold")
    for group in _GROUPS:
        rows = [line for line in lines if line.group == group]
        for number, line in enumerate(rows):
            state = f"[{_STYLES[line.state]}]{_text(f'{MARKS[line.state]} {line.state}')}[/]"
            node = [_text(line.node)] if several else []
            cells = [group if number == 0 else "", _text(line.what), state, *node, _text(line.found), _text(line.fix)]
            table.add_row(*cells, end_section=number == len(rows) - 1)
    console.print(table)
    console.print(_text(f"doctor: {overview}"))


def _text(text: str) -> str:
    """A cell: without secrets, in characters that the terminal or log can show."""
    shown = redact_text(text)
    return escape(shown.encode(console.encoding, "replace").decode(console.encoding))
