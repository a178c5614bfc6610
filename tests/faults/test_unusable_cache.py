"""A cache that cannot be written or locked: one warning, and the run goes on without it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.api import run
from raysandbox.core import disk
from tests.faults.test_full_disk import ROOT, can_mount, text_config

READ_ONLY = """
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", sys.argv[2]], check=True)
from raysandbox.cli.main import main
main(["run", sys.argv[1]])
"""


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_told", set())


def outputs(config: Path) -> dict[str, bytes]:
    folder = config.parent / "work/out"
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    }


def with_cache(config: Path, folder: Path) -> Path:
    """The configuration with another cache_dir and an empty work_dir."""
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    other = config.with_name("other.yaml")
    other.write_text(yaml.safe_dump({**content, "cache_dir": str(folder)}))
    return other


def test_a_cache_where_no_folder_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = text_config(tmp_path)
    run(config)
    wanted = outputs(config)
    (tmp_path / "file").touch()
    caplog.clear()
    run(with_cache(config, tmp_path / "file/cache"))
    assert outputs(config) == wanted
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    without = [text for text in told if "the run goes on without" in text]
    assert without
    assert len(without) == len({text.split(" cannot be")[0] for text in without}), without


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = text_config(tmp_path)
    real = fcntl.flock

    def flock(file: Any, operation: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if str(tmp_path / "cache") in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    run(config)
    assert json.loads((tmp_path / "work/status.json").read_text())["state"] == "done"


@pytest.mark.skipif(not can_mount(), reason="mounting a disk needs root and mount namespaces")
def test_a_cache_on_a_read_only_disk(tmp_path: Path) -> None:
    config = text_config(tmp_path)
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", READ_ONLY, str(config), str(tmp_path / "cache")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Read-only file system" in done.stdout + done.stderr
    assert json.loads((tmp_path / "work/status.json").read_text())["state"] == "done"
