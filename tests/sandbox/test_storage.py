"""Objects below a URL: what an operation does when the store hangs."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from raysandbox.sandbox import storage
from raysandbox.sandbox.storage import ObjectStore, StorageError

OPERATIONS: dict[str, Callable[[ObjectStore, Path], object]] = {
    "read": lambda store, file: store.read("a"),
    "write": lambda store, file: store.write("a", b""),
    "create": lambda store, file: store.create("a", b""),
    "upload": lambda store, file: store.upload(file, "a"),
    "download": lambda store, file: store.download("a", file, 1),
    "sizes": lambda store, file: store.sizes(),
    "move": lambda store, file: store.move("a", "b", 1),
    "remove": lambda store, file: store.remove("a"),
    "age": lambda store, file: store.age("a", "b"),
}


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store that can be reached by nobody, and does not say so."""
    over = threading.Event()

    def hang(self: ObjectStore) -> tuple[Any, str]:
        over.wait(60)
        raise ConnectionError("too late")

    monkeypatch.setattr(ObjectStore, "_system", hang)
    yield ObjectStore("memory://bucket/run", patience_s=0.0, answer_s=0.05)
    over.set()


@pytest.mark.timeout(50)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_hangs_is_given_up(name: str, hanging: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(StorageError, match=r"memory://bucket/run cannot .*TimeoutError: no answer in 0\.\d+ s"):
        OPERATIONS[name](hanging, tmp_path / "file")


@pytest.mark.timeout(50)
def test_several_operations_that_hang_are_given_up(hanging: ObjectStore) -> None:
    with pytest.raises(StorageError, match="no answer"):
        hanging.each(hanging.read, map(str, range(20)))


def test_large_contents_have_more_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits: list[float] = []

    def within(seconds: float, call: Callable[[], Any]) -> Any:
        limits.append(seconds)
        return call()

    monkeypatch.setattr(storage, "within", within)
    url = f"memory://bucket-{uuid.uuid4().hex}/run"
    store, content = ObjectStore(url, answer_s=60), b"x" * (3 << 18)  # three seconds at 256 KiB/s
    (tmp_path / "file").write_bytes(content)
    store.write("a", content)
    store.upload(tmp_path / "file", "a")
    store.read("a", len(content))
    store.download("a", tmp_path / "file", len(content))
    store.move("a", "b", len(content))
    assert limits == [63.0] * 5
    store.remove("b")
    store.sizes()
    assert limits[5:] == [60.0, 600.0]
    fsspec.filesystem("memory").rm(url.partition("://")[2].partition("/")[0], recursive=True)
