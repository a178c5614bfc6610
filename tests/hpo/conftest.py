"""Data of small searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hpo.tiny_searches import ROWS


@pytest.fixture
def texts(workspace: Path) -> Path:
    """Texts of 1, 2, … 40 characters."""
    path = workspace / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * length}) + "\n" for length in range(1, ROWS + 1)))
    return path
