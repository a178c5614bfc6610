"""The deployment files, and how they are read and changed in tests."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
PAGES = ROOT / "docs/deployment"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(
    line.split("==")
    for line in (ROOT / "scripts/constraints.txt").read_text().split()
    if "==" in line and "#" not in line
)


def load(path: str) -> Any:
    """The one YAML document of a file below cluster/."""
    return yaml.safe_load((CLUSTER / path).read_text())


def changed(document: Any, *place: str | int, value: Any) -> Any:
    """A copy of a document with another value at a place."""
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return document
