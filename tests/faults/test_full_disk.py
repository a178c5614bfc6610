"""A disk that is full, at every place of a run: a tmpfs of so many pages as work_dir, or as cache_dir."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def can_mount() -> bool:
    """Whether this process may mount a disk that nobody else sees."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="mounting a small disk needs root and mount namespaces")


def text_config(folder: Path) -> Path:
    """Jobs in one process that write an analysis, JSON lines, Parquet, CSV, quarantine and trace."""
    lines = [json.dumps({"text": f"text {n} " * (1 + n % 17), "n": n}) for n in range(1200)]
    (folder / "data.jsonl").write_text("\n".join([*lines, "{no row"]) + "\n")
    recipe = {"dataset_path": str(folder / "data.jsonl"), "max_bad_rows": 1}
    steps: list[Any] = [{"text_length_filter": {"min_len": 20}}, {"document_deduplicator": {}}]
    written = [
        {
            "hook": "ProcessDataHook",
            "meta_name": kind,
            "output": ["path"],
            "dj_configs": {**recipe, "export_path": str(folder / f"work/out/kept.{kind}"), "process": steps, **more},
        }
        for kind, more in (("jsonl", {"open_tracer": True}), ("parquet", {}), ("csv", {}), ("json", {}))
    ]
    config = {
        "work_dir": str(folder / "work"),
        "cache_dir": str(folder / "cache"),
        "probe_job_configs": [
            {"hook": "ProbeViaAnalyzerHook", "meta_name": "a", "dj_configs": {**recipe, "process": steps[:1]}}
        ],
        "execution_job_configs": written,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    (folder / "work").mkdir()
    (folder / "cache").mkdir()
    return path


def swept(folder: Path, config: Path, disk: str, step: int, timeout: float = 120) -> list[dict[str, Any]]:
    """What was seen with each size of the disk."""
    command = ["unshare", "-m", sys.executable, "-m", "tests.faults.full_disk", str(config), str(folder / disk)]
    command += [str(step), str(folder / "work"), str(folder / "cache")]
    home = folder / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "Traceback" not in done.stderr, done.stderr[-6000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("step", [28, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_full_work_dir_is_said_and_what_is_there_is_gone_on_with(tmp_path: Path, step: int) -> None:
    seen = swept(tmp_path, text_config(tmp_path), "work", step, timeout=60 if step > 1 else 900)
    assert seen[0]["error"]
    assert not seen[-1]["error"]
    for each in seen:
        if each["error"]:
            assert "No space left" in each["error"], each
            assert "free of" in each["error"] or each["error"].startswith("ConfigError"), each
            assert each["state"] in (None, "failed", "running"), each
        assert each["left"] == [], each
        assert each["same"], each


@pytest.mark.parametrize("step", [28, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_full_cache_fails_nothing(tmp_path: Path, step: int) -> None:
    for each in swept(tmp_path, text_config(tmp_path), "cache", step, timeout=60 if step > 1 else 900):
        assert (each["error"], each["state"], each["same"]) == ("", "done", True), each
