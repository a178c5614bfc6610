"""What killed writers leave is removed; what others write is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from raysandbox.core.leftovers import remove_leftovers, tidy_cache
from raysandbox.sandbox.state import is_other_run

KILLED = """
import os, signal, sys
from pathlib import Path
from raysandbox.core.files import atomic_dir, atomic_path
with atomic_path(Path(sys.argv[1]) / "a.json") as file, atomic_dir(Path(sys.argv[1]) / "b") as folder:
    file.write_text("half"); (folder / "part").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def old(path: Path, seconds: float) -> Path:
    os.utime(path, (time.time() - seconds, time.time() - seconds))
    return path


def test_what_a_killed_writer_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "deep")], check=False, timeout=60)
    assert done.returncode == -9
    (tmp_path / "deep/.tmp-mine").write_text("a user's")
    assert len([*tmp_path.rglob(".tmp-*")]) == 3
    assert remove_leftovers(tmp_path) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", ".tmp-mine"]
    assert remove_leftovers(tmp_path / "missing") == 0


def test_in_a_shared_folder_only_what_is_old_goes_and_the_search_is_rare(tmp_path: Path) -> None:
    young, aged = tmp_path / ".tmp-1-01234567-young", tmp_path / ".tmp-1-01234567-aged"
    young.touch()
    aged.touch()
    old(aged, 7200)
    tidy_cache(tmp_path)
    assert (young.exists(), aged.exists()) == (True, False)
    old(young, 7200)
    tidy_cache(tmp_path)
    assert young.exists()
    old(tmp_path / ".swept", 7200)
    tidy_cache(tmp_path)
    assert not young.exists()


def test_what_stands_in_the_folder_of_another_run_stays(tmp_path: Path) -> None:
    mine, trial, other = tmp_path / "artifacts", tmp_path / "trials/0001", tmp_path / "exp2"
    for folder in (mine, trial, other / "artifacts/deep"):
        folder.mkdir(parents=True)
        (folder / ".tmp-1-01234567-x").touch()
    for folder in (trial, other):
        (folder / ".lock").touch()
    assert remove_leftovers(tmp_path, is_others=is_other_run) == 2
    assert [path.parent for path in tmp_path.rglob(".tmp-*")] == [other / "artifacts/deep"]
    assert remove_leftovers(other, is_others=is_other_run) == 1  # its own run's end
