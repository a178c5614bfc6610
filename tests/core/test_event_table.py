"""docs/events.md names every event and every metric of the code, with their fields."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from raysandbox.runtime.telemetry import METRICS, exported_name

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
ROWS = {row[1]: row[0] for row in re.finditer(r"(?m)^\| `(\w+)` \|.*$", PAGE)}
BY_A_WORKER = {"job", "worker", "node", "pid", "actor"}  # which `Crew._tell` adds


def emitted():
    """Events in the code with the fields that they are given by name."""
    found = defaultdict(set)
    for path in (ROOT / "raysandbox").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            event = node.args[0]
            if name in ("emit", "_emit", "_tell") and isinstance(event, ast.Constant) and isinstance(event.value, str):
                found[event.value] |= {keyword.arg for keyword in node.keywords if keyword.arg}
                found[event.value] |= BY_A_WORKER if name == "_tell" else set()
    return found


EVENTS = emitted()


def test_the_code_was_read():
    assert {"run_started", "job_done", "worker_lost", "unit_done", "trial_ended"} <= EVENTS.keys()
    assert len(EVENTS) > 20


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_every_event_is_in_the_table(event):
    assert event in ROWS, f"docs/events.md lacks {event}"
    missing = {name for name in EVENTS[event] if f"`{name}`" not in ROWS[event]}
    assert not missing


def test_the_table_has_no_others():
    events = {name for name in ROWS if not name.startswith("ray_raysandbox_")}
    assert events == EVENTS.keys()
    assert {name for name in ROWS if name.startswith("ray_raysandbox_")} == {exported_name(name) for name in METRICS}
