"""Digests of many files: one memo per folder, torn lines, other processes."""

import os
from pathlib import Path

import pytest

from raysandbox.core.events import Journal, read_events
from raysandbox.core.keys import DigestMemo


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(20):
        (folder / f'na"me {number}.txt').write_text(str(number % 7))
    return sorted(folder.iterdir())


def memo_file(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "memo").iterdir()
    return file


def test_one_file_holds_what_is_known_of_a_folder(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(DigestMemo(tmp_path / "memo").of_files(files))
    assert len(set(found)) == 7
    assert len(memo_file(tmp_path).read_text().splitlines()) == 20
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a file is read again"))
    again = DigestMemo(tmp_path / "memo")
    assert list(again.of_files(map(str, files))) == found
    assert again.of(files[0].parent) == DigestMemo(tmp_path / "memo").of(files[0].parent)


@pytest.mark.parametrize("cut", [1, 3, 40, 90])
def test_a_torn_memo_costs_digests_and_nothing_else(tmp_path: Path, files: list[Path], cut: int) -> None:
    found = list(DigestMemo(tmp_path / "memo").of_files(files))
    memo = memo_file(tmp_path)
    memo.write_bytes(memo.read_bytes()[:-cut])
    assert list(DigestMemo(tmp_path / "memo").of_files(files)) == found  # and appends to what was torn
    memo.write_bytes(memo.read_bytes().replace(b"\n", b"\0\n", 3))
    assert list(DigestMemo(tmp_path / "memo").of_files(files)) == found
    memo.write_bytes(b"")
    assert list(DigestMemo(tmp_path / "memo").of_files(files)) == found


def test_a_changed_file_and_what_is_no_file(tmp_path: Path, files: list[Path]) -> None:
    memo = DigestMemo(tmp_path / "memo")
    before = memo.of(files[0])
    files[0].write_text("other")
    os.symlink(files[0], tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    found = list(memo.of_files([files[0], tmp_path / "link", tmp_path / "fifo", tmp_path / "none", tmp_path]))
    assert found[0] == found[1] != before
    assert found[2:] == [None, None, None]


def test_what_another_process_found_is_seen(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = DigestMemo(tmp_path / "memo"), DigestMemo(tmp_path / "memo")
    ours.of(files[0])
    wanted = theirs.of(files[1])
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a file is read again"))
    assert ours.of(files[1]) == wanted


def test_events_of_units_are_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in the file at once; the disk is waited for now and then, and with the next event of another kind."""
    synced: list[int] = []
    monkeypatch.setattr("raysandbox.core.events._SYNC_S", 600.0)
    monkeypatch.setattr(os, "fsync", synced.append)
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "run")
    for number in range(100):
        journal.emit("unit_done", index=number)
        assert path.read_bytes().count(b"\n") == number + 1
    assert not synced
    journal.emit("job_done", job="a")
    assert len(synced) == 1
    monkeypatch.setattr("raysandbox.core.events._SYNC_S", 0.0)
    journal.emit("unit_done", index=100)
    assert len(synced) == 2
    journal.close()
    assert [event["seq"] for event in read_events(path)] == list(range(102))


@pytest.mark.parametrize("damage", [b"", b"\0" * 100_000 + b"\n", b'{"torn": "'])
def test_numbers_go_on_behind_a_long_or_damaged_journal(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "one")
    for number in range(600):
        journal.emit("unit_done", text="é" * 200, index=number)
    journal.close()
    with path.open("ab") as file:
        file.write(damage)
    again = Journal(path, "two")
    again.emit("job_done")
    again.close()
    assert [event["seq"] for event in read_events(path)] == list(range(601))
