"""Versions in the deployment files and pages are those of the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster._files import CLUSTER, PAGES, PINS, PROJECT, ROOT, load

VERSION = PROJECT["project"]["version"]
RAY = PINS["ray"]
PYTHON = PROJECT["tool"]["ruff"]["target-version"].removeprefix("py3")
FILES = sorted(path for folder in (CLUSTER, PAGES) for path in folder.rglob("*") if path.is_file())
FILES += [ROOT / "README.md", ROOT / "README_ZH.md"]


def strange(text: str) -> list[str]:
    """Versions of raysandbox, Ray or Python in a text that are not the project's."""
    wanted = {
        r"\braysandbox:(\d[\w.]*)-": VERSION,
        r"\brayVersion: (\S+)": RAY,
        r"\b[Rr]ay[ =:]=?v?(\d+\.\d+(?:\.\d+)?)": RAY,
        r"Ray of version\s+(\d+\.\d+(?:\.\d+)?)": RAY,
        r"\b[Pp]ython[ :]?(3\.\d+)": f"3.{PYTHON}",
    }
    found = []
    for pattern, version in wanted.items():
        for match in re.finditer(pattern, text):
            if version != match[1] and not version.startswith(match[1] + "."):
                found.append(match[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_versions_agree(path: Path) -> None:
    assert strange(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "image: x/raysandbox:0.0.9-cpu",
        "rayVersion: 2.59.0",
        "Ray 2.5",
        "ray==2.61.0",
        "python:3.12.1-slim",
        "Python 3.10",
    ],
)
def test_other_versions_are_found(text: str) -> None:
    assert strange(text)


def test_manifests_name_the_ray_of_the_image() -> None:
    assert load("kuberay/raycluster.yaml")["spec"]["rayVersion"] == RAY
    assert f"ray[default,data]=={RAY.rpartition('.')[0]}.*" in PROJECT["project"]["dependencies"]


def test_every_image_is_one_that_a_dockerfile_makes() -> None:
    named = {match for path in FILES for match in re.findall(r"raysandbox:(\d[\w.-]*)", path.read_text())}
    made = {
        match
        for path in CLUSTER.glob("docker/Dockerfile*")
        for match in re.findall(r"docker build .*-t raysandbox:([\w.-]+)", path.read_text())
    }
    assert named == made == {f"{VERSION}-cpu", f"{VERSION}-cuda", f"{VERSION}-cpu-vbench"}
