"""What of a run's folder is sent and fetched, and what stays."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from pathlib import Path

import pytest

from raysandbox.core.keys import DigestMemo
from raysandbox.sandbox.mirror import Mirror
from raysandbox.sandbox.storage import ObjectStore

WORK = "artifacts/00-train/state.json"


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(f"memory://bucket-{uuid.uuid4().hex}/run1")


def begun(store: ObjectStore, folder: Path) -> Mirror:
    """What a process that goes on with a run begins with."""
    mirror = Mirror(store, folder / "run1", DigestMemo(folder / "digests"))
    assert mirror.fetch() == []
    return mirror


def note(mirror: Mirror, step: int) -> None:
    path = mirror.folder / WORK
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": step}))


def step(mirror: Mirror) -> int:
    return json.loads((mirror.folder / WORK).read_text())["step"]


def test_work_that_a_kill_left_here_is_not_replaced_by_an_older_list(store: ObjectStore, tmp_path: Path) -> None:
    first = begun(store, tmp_path / "a")
    note(first, 100)
    first.send_rest()  # interrupted
    note(begun(store, tmp_path / "a"), 9000)  # goes on for hours, and is killed
    assert step(begun(store, tmp_path / "a")) == 9000

    other = begun(store, tmp_path / "b")  # another machine has what was sent
    assert step(other) == 100
    note(other, 200)
    assert step(begun(store, tmp_path / "b")) == 200  # fetched, gone on with and killed there
    other.send_rest()
    assert step(begun(store, tmp_path / "a")) == 200  # a list that is new here


def test_work_is_fetched_again_where_the_folder_is_gone(store: ObjectStore, tmp_path: Path) -> None:
    first = begun(store, tmp_path / "a")
    note(first, 100)
    first.send_rest()
    shutil.rmtree(first.folder)
    assert step(begun(store, tmp_path / "a")) == 100


def test_a_known_list_is_not_sent_again(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begun(store, tmp_path)
    note(first, 100)
    (first.folder / "weights.bin").write_bytes(b"many")
    first.send_rest()
    sent: list[str] = []
    upload = ObjectStore.upload
    monkeypatch.setattr(ObjectStore, "upload", lambda self, path, name: (sent.append(name), upload(self, path, name)))
    second = begun(store, tmp_path)
    note(second, 101)
    second.send_rest()
    assert sent == [WORK]


def test_what_is_fetched_is_read_side_by_side(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = ["trials/1/metrics.jsonl", "trials/2/metrics.jsonl"]
    markers = [f"artifacts/markers/{number}.json" for number in range(2)]
    for name in states:
        store.write(name, b"{}\n")
    for name in markers:
        store.write(name, json.dumps({"marker": {"digests": {}}, "objects": {}}).encode())
    both = {name: threading.Barrier(2) for name in ("metrics.jsonl", "markers")}
    read = ObjectStore.read

    def together(self: ObjectStore, name: str, *size: int) -> bytes | None:
        both["markers" if "markers" in name else "metrics.jsonl"].wait(20)  # broken unless the other comes meanwhile
        return read(self, name, *size)

    monkeypatch.setattr(ObjectStore, "read", together)
    mirror = begun(store, tmp_path)
    assert all((mirror.folder / name).exists() for name in states + markers)


def test_a_status_that_changes_while_it_is_sent_is_sent_again(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = begun(store, tmp_path)
    mirror.folder.mkdir(parents=True, exist_ok=True)
    status = mirror.folder / "status.json"
    status.write_text("running")
    upload = ObjectStore.upload

    def slow(self: ObjectStore, path: Path, name: str) -> None:
        upload(self, path, name)
        if store.read(name) == b"running":
            status.write_text("interrupted")  # by a signal's handler

    monkeypatch.setattr(ObjectStore, "upload", slow)
    mirror.send_state()
    assert store.read("status.json") == b"interrupted"
