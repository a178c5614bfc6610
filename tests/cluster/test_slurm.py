"""The Slurm script with a stand-in for Slurm, in namespaces of its own: `ray stop` must see no other Ray.

`srun` runs the step on this one node, `scontrol` writes down what it is asked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.cluster._files import CLUSTER, ROOT

SCRIPT = CLUSTER / "slurm/run.sbatch"
# Own processes, own loopback, and end of all of them with the first.
NAMESPACES = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS/srun"
while [[ "$1" == --* ]]; do shift; done
export SLURM_PROCID=0
"$@"
"""
SCONTROL = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS/scontrol"
"""
CONFIG = """
project_name: p
experiment_name: e
work_dir: ./out
execution_job_configs:
  - hook: ProcessDataHook
    meta_name: process
    dj_configs:
      dataset_path: rows.jsonl
      export_path: ./out/kept.jsonl
      engine: ray
      process: [{text_length_filter: {min_len: 3}}]
    output: [path]
"""


def have_namespaces() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return (
        subprocess.run([*NAMESPACES, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode == 0
    )


@dataclass
class Slurm:
    """A folder on the "shared" file system, and the script run in it."""

    folder: Path
    short: Path  # Ray's sockets need short names
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        hidden = ("RAY", "SLURM", "RAYSANDBOX")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        return kept | {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "CALLS": str(self.folder),
            "RAYSANDBOX_VENV": str(Path(sys.executable).parents[1]),
            "RAYSANDBOX_ROOT": str(self.folder / "shared"),
            "RAYSANDBOX_HEAD": "127.0.0.1",
            "RAY_TMPDIR": str(self.short),
            "PYTHONPATH": str(ROOT),
            "SLURM_JOB_ID": "77",
            "SLURM_JOB_NUM_NODES": "1",
            **self.settings,
        }

    def start(self, *arguments: str, apart: bool = True) -> subprocess.Popen[str]:
        inner = ["bash", "-c", 'ip link set lo up; exec bash "$@"', "_"] if apart else ["bash"]
        return subprocess.Popen(
            [*(NAMESPACES if apart else []), *inner, str(SCRIPT), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, apart: bool = True, timeout: float = 200) -> tuple[int, str]:
        """Status and output."""
        process = self.start(*arguments, apart=apart)
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()  # unshare's child and all of its processes end with it
        return process.returncode, output

    def calls(self, program: str) -> str:
        """What a stand-in was called with."""
        path = self.folder / program
        return path.read_text() if path.exists() else ""

    @property
    def status(self) -> dict[str, object]:
        return json.loads((self.folder / "out/status.json").read_text())


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "home").mkdir()
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "x" * length}) + "\n" for length in range(1, 7)))
    with tempfile.TemporaryDirectory(prefix="rs", dir="/tmp", ignore_cleanup_errors=True) as short:
        yield Slurm(tmp_path, Path(short))


@pytest.mark.parametrize(
    ("unset", "message"),
    [
        ("RAYSANDBOX_ROOT", "export RAYSANDBOX_ROOT"),
        ("SLURM_JOB_ID", "for sbatch"),
        ("RAYSANDBOX_VENV", "export RAYSANDBOX_VENV"),
    ],
)
def test_a_missing_setting_is_said(slurm: Slurm, unset: str, message: str) -> None:
    slurm.settings[unset] = ""
    status, output = slurm.run("cfg.yaml", apart=False)
    assert status != 0
    assert message in output
    assert slurm.calls("srun") == ""


def test_a_wrong_configuration_starts_nothing(slurm: Slurm) -> None:
    (slurm.folder / "cfg.yaml").write_text(CONFIG.replace("text_length_filter", "text_lenth_filter"))
    status, output = slurm.run("cfg.yaml", apart=False)
    assert status == 2
    assert "did you mean 'text_length_filter'" in output
    assert slurm.calls("srun") == ""


def test_options_of_the_run_count_in_the_check(slurm: Slurm) -> None:
    (slurm.folder / "cfg.yaml").write_text(CONFIG + "max_iter_num: many\n")
    assert slurm.run("cfg.yaml", apart=False)[0] == 2
    assert slurm.run("cfg.yaml", "--resume", "-o", "max_iter_num=0", apart=False)[0] == 2
    (slurm.folder / "bin/srun").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$*" >>"$CALLS/srun"\nexit 0\n')
    slurm.run("cfg.yaml", "--resume", "-o", "max_iter_num=1", apart=False)
    assert slurm.calls("srun")


def test_ray_that_does_not_start_is_a_failure(slurm: Slurm) -> None:
    (slurm.folder / "bin/srun").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$*" >>"$CALLS/srun"\nexit 0\n')
    slurm.settings |= {"SLURM_JOB_NUM_NODES": "3", "SLURM_RESTART_COUNT": "1"}
    status, output = slurm.run("cfg.yaml", "-o", "max_iter_num=2", apart=False)
    assert status == 1
    assert "Ray did not start on all nodes" in output
    (call,) = slurm.calls("srun").splitlines()
    assert "--nodes=3 --ntasks=3 --ntasks-per-node=1" in call
    assert "ray symmetric-run --address 127.0.0.1:6379 --min-nodes 3" in call
    assert f"cfg.yaml -o max_iter_num=2 -o cache_dir={slurm.folder}/shared/cache --resume" in call  # queued again
    assert not list((slurm.folder / "shared/.slurm").iterdir())  # no token stays


@pytest.mark.chaos
@pytest.mark.skipif(not have_namespaces(), reason="no namespaces for a Ray of its own")
def test_a_run_on_one_node(slurm: Slurm) -> None:
    status, output = slurm.run("cfg.yaml")
    assert status == 0, output
    assert "On head node. Starting Ray cluster head" in output
    assert (slurm.status["state"], slurm.status["exit"]) == ("done", 0)
    assert len((slurm.folder / "out/kept.jsonl").read_text().splitlines()) == 4
    assert slurm.calls("scontrol") == ""
    assert not list((slurm.folder / "shared/.slurm").iterdir())
    assert list((slurm.folder / "shared/cache").iterdir())
    sessions = [path for path in slurm.short.glob("ray/session_*") if not path.is_symlink()]
    assert len(sessions) == 1, "the run used the cluster's Ray, not one of its own"


@pytest.mark.chaos
@pytest.mark.skipif(not have_namespaces(), reason="no namespaces for a Ray of its own")
def test_a_run_whose_time_is_over_is_queued_again_and_goes_on(slurm: Slurm) -> None:
    rows = (json.dumps({"text": f"row {number} " * 20}) + "\n" for number in range(100_000))
    (slurm.folder / "rows.jsonl").write_text("".join(rows))
    process = slurm.start("cfg.yaml")
    try:
        end = time.monotonic() + 120
        while not (slurm.folder / "out/status.json").exists() or not slurm.status["pid"]:
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        for inner in psutil.Process(process.pid).children(recursive=True):
            if inner.cmdline()[:2] == ["bash", str(SCRIPT)]:  # Slurm tells the script alone
                inner.send_signal(signal.SIGUSR1)
                break
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, output
    assert (slurm.status["state"], slurm.status["exit"]) == ("interrupted", 143)
    assert slurm.calls("scontrol") == "requeue 77\n"
    slurm.settings["SLURM_RESTART_COUNT"] = "1"
    status, output = slurm.run("cfg.yaml")
    assert status == 0, output
    assert slurm.status["state"] == "done"
    assert len((slurm.folder / "out/kept.jsonl").read_text().splitlines()) == 100_000
