"""Writes that the disk refuses, at every step of them."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysandbox.core import disk, files
from raysandbox.core.disk import dispensable, write_failure, writes
from raysandbox.core.errors import JobFailed, WriteFailed
from raysandbox.core.events import Journal, read_events
from raysandbox.core.files import atomic_dir, atomic_write, read_object
from raysandbox.core.keys import DigestMemo


def refusing(call: Callable[..., Any], number: int = errno.ENOSPC) -> Callable[..., Any]:
    def refuse(*args: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("owner", "name"), [(files.os, "fsync"), (files.os, "replace"), (Path, "write_text"), (Path, "mkdir")]
)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_refused_step_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int
) -> None:
    target = tmp_path / "a/status.json"
    atomic_write(target, "old")
    monkeypatch.setattr(owner, name, refusing(getattr(owner, name), number))
    with pytest.raises(WriteFailed, match=f"status.json: {os.strerror(number)}"):
        atomic_write(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_refused_folder_leaves_what_was_there(tmp_path: Path) -> None:
    with atomic_dir(tmp_path / "a") as folder:
        (folder / "x").touch()

    def fail() -> None:
        with atomic_dir(tmp_path / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteFailed):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "x"]


def test_the_message_names_file_room_and_fix_and_survives_pickling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_fullest", lambda target: (tmp_path, 4096, 50_000_000))
    failed = write_failure(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "kept.jsonl")
    again = pickle.loads(pickle.dumps(failed))
    expected = (
        f"{tmp_path}/kept.jsonl: No space left on device ({tmp_path} has 0.0 MB free of 50.0 MB: make room there, "
        f"then run again with --resume)"
    )
    assert (str(again), again.errno, isinstance(again, JobFailed)) == (expected, errno.ENOSPC, True)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "Error writing bytes to file"), errno.ENOSPC),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (Exception("Disk quota exceeded"), errno.EDQUOT),
        (OSError(errno.ENOENT, "No such file"), None),
        (ValueError("x"), None),
        (JobFailed("No space left on device"), None),
    ],
)
def test_what_libraries_say(tmp_path: Path, error: Exception, number: int | None) -> None:
    failed = write_failure(error, tmp_path)
    assert (failed and failed.errno) == number


def test_torchs_unclear_error_is_a_full_disk_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unclear = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    assert write_failure(unclear, tmp_path) is None
    monkeypatch.setattr(disk, "_fullest", lambda target: (tmp_path, 0, 50_000_000))
    failed = write_failure(unclear, tmp_path)
    assert failed is not None
    assert failed.errno == errno.ENOSPC


def test_a_journal_takes_a_line_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "run")
    journal.emit("first")

    class Full:
        """The journal's file, on a disk with room for five more bytes."""

        name, left = os.fsencode(path), 5
        file = journal._file

        def fileno(self) -> int:
            return self.file.fileno()

        def truncate(self, size: int) -> int:
            return self.file.truncate(size)

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left = 0
            return self.file.write(data[:5])

    journal._file = Full()  # type: ignore[assignment]
    with pytest.raises(WriteFailed, match=r"journal.jsonl: No space left"):
        journal.emit("second")
    journal._file = Full.file
    journal.emit("third")
    journal.close()
    assert [(event["event"], event["seq"]) for event in read_events(path)] == [("first", 0), ("third", 1)]
    assert len(path.read_bytes().splitlines()) == 2


def test_a_cache_is_done_without_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk._told.clear()
    for _ in range(2):
        with dispensable("the test's cache", tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        f"the test's cache cannot be written, and the run goes on without: {tmp_path}: No space left on device"
    ]
    with pytest.raises(ZeroDivisionError), dispensable("the test's cache", tmp_path):
        _ = 1 / 0


def test_digests_are_found_without_a_memo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("x")
    wanted = DigestMemo(tmp_path / "memo").of(tmp_path / "x")
    monkeypatch.setattr(Path, "mkdir", refusing(Path.mkdir))
    assert DigestMemo(tmp_path / "other").of(tmp_path / "x") == wanted
    assert not (tmp_path / "other").exists()


def test_other_errors_go_through_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writes(tmp_path):
        raise KeyError("x")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b'{"a": '])
def test_a_damaged_object_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert read_object(tmp_path / "x.json") == {}
