"""Every shell script of the project: its syntax, and what shellcheck finds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster._files import ROOT

SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def shell_scripts() -> list[Path]:
    """Files of scripts/ and cluster/ that a shell runs, by their first line or their ending."""
    found = []
    for path in sorted(
        path for folder in ("scripts", "cluster") for path in (ROOT / folder).rglob("*") if path.is_file()
    ):
        with path.open("rb") as file:
            first = file.readline()
        if path.suffix in {".sh", ".sbatch"} or re.match(rb"#!.*\b(ba)?sh\b", first):
            found.append(path)
    return found


def shellcheck(*arguments: str | Path, text: str | None = None) -> str:
    command = [SHELLCHECK, "--shell=bash", "--severity=info", "--exclude=SC1091", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_scripts_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in shell_scripts()}
    assert {"scripts/demo", "scripts/check", "scripts/venv.sh", "cluster/slurm/run.sbatch"} <= names


@pytest.mark.parametrize("path", shell_scripts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_script_is_sound(path: Path) -> None:
    parsed = subprocess.run(["bash", "-n", path], capture_output=True, text=True, timeout=10, check=False)
    assert parsed.returncode == 0, parsed.stderr
    assert shellcheck(path) == ""


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("rm -rf $1/cache\n", "SC2086"),
        ("cd nowhere\nls\n", "SC2164"),
        ("if true; then\n", "SC1"),
        ("echo $(ls\n", "SC1"),
    ],
)
def test_shellcheck_finds_planted_errors(text: str, finding: str) -> None:
    assert finding in shellcheck("-", text=f"#!/usr/bin/env bash\n{text}")


@pytest.mark.parametrize("path", shell_scripts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_script_stops_at_errors(path: Path) -> None:
    text = path.read_text()
    sourced = not text.startswith("#!")
    assert sourced or "set -euo pipefail" in text
