"""The benchmark of scale runs, with small amounts, from the first part to the last."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCALE = Path(__file__).parents[2] / "scripts/bench/scale"
PARTS = ["resume", "marker", "journal", "planning", "crew", "search", "views"]  # `ray` starts a Ray of its own


@pytest.mark.timeout(300)
def test_small_amounts(tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    command = [sys.executable, SCALE, "--small", "--parts", ",".join(PARTS), "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert {row["part"] for row in rows} == set(PARTS)
    assert all(row["amount"] > 0 and row["peak_mb"] > 0 and row["reached"] is None for row in rows)
    crew = next(row for row in rows if row["name"].startswith("workers asked for"))
    assert crew["facts"].get("nodes", 0) < crew["amount"] / 10  # Ray's list of nodes, not one look per worker
    assert done.stdout.count("\n") > len(rows)


def test_an_unknown_part_is_refused() -> None:
    done = subprocess.run([sys.executable, SCALE, "--parts", "none"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "there is no part none; they are resume, " in done.stderr
