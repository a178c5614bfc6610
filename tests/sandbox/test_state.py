"""The folder of a run."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from raysandbox.core import disk
from raysandbox.core.errors import WorkDirBusyError
from raysandbox.sandbox.state import RunFolder, give_room


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_said_and_the_run_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(file: Any, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(disk, "_told", set())
    with caplog.at_level(logging.WARNING), RunFolder(tmp_path / "work"):
        assert int((tmp_path / "work/.lock").read_text()) == os.getpid()
    assert f"the lock of a work_dir cannot be written, and the run goes on without: [Errno {number}]" in caplog.text


def test_a_held_folder_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(WorkDirBusyError, match=f"pid {os.getpid()}"):
        RunFolder(tmp_path).__enter__()
    RunFolder(tmp_path).__enter__().__exit__()


def test_a_live_run_keeps_room_for_its_last_words(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with RunFolder(tmp_path):
        assert lock.stat().st_size > 64 << 10
        give_room(tmp_path)
        assert lock.read_text() == str(os.getpid())
    with RunFolder(tmp_path):
        assert lock.stat().st_size > 64 << 10
    assert lock.read_text() == str(os.getpid())
