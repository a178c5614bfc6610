"""What others left in an object store decides neither where files are written nor whether a run begins."""

import json
import logging
import uuid
from pathlib import Path

import fsspec
import pytest

from raysandbox.core.keys import DigestMemo
from raysandbox.sandbox.mirror import Mirror
from raysandbox.sandbox.storage import ObjectStore

EVIL = (
    "../../artifacts/markers/evil.json",
    "artifacts/../../../artifacts/markers/evil.json",
    "/artifacts/markers/evil.json",
    "trials/../status.json",
    "./status.json",
    "trials//status.json",
)


@pytest.fixture
def store():
    name = f"bucket-{uuid.uuid4().hex}"
    yield ObjectStore(f"memory://{name}/run")
    system = fsspec.filesystem("memory")
    if system.exists(f"/{name}"):
        system.rm(f"/{name}", recursive=True)


def mirror_of(store: ObjectStore, tmp_path: Path) -> Mirror:
    folder = tmp_path / "deep" / "down" / "mirror"
    folder.mkdir(parents=True)
    return Mirror(store, folder, DigestMemo(tmp_path / "digests"))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", EVIL)
def test_names_of_objects_stay_inside(tmp_path, store, name, caplog, monkeypatch):
    mirror = mirror_of(store, tmp_path)
    marker = json.dumps({"marker": {"digests": {}}, "objects": {}}).encode()
    good = "artifacts/markers/good.json"
    store.write(good, marker)
    listed = {f"{store.url.removeprefix('memory:/')}/{found}": {"size": len(marker)} for found in (good, name)}
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        # As a store lists it: the file system of the tests tidies some names up.
        patch.setattr(type(fsspec.filesystem("memory")), "find", lambda *_, **__: listed)
        patch.setattr(ObjectStore, "read", lambda self, name, size=0: marker)
        mirror.fetch()
    assert files(mirror.folder) == [good]
    assert [found for found in files(tmp_path) if found.endswith(("evil.json", "status.json"))] == []
    assert "its name leads elsewhere" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        {"objects": {}},
        {"objects": {}, "marker": None},
        {"objects": {}, "marker": []},
        {"objects": {}, "marker": {}},
        {"objects": {}, "marker": {"digests": ["x"]}},
        {"objects": {}, "marker": {"digests": {"x": {}}}},
        {"objects": [], "marker": {"digests": {}}},
        {"objects": {"x": {"sha256": [], "size": 1, "places": False}}, "marker": {"digests": {}}},
        {"objects": {"x": {"sha256": "", "size": "1", "places": False}}, "marker": {"digests": {}}},
        [],
        None,
    ],
)
def test_markers_of_another_form_are_none(tmp_path, store, content):
    mirror = mirror_of(store, tmp_path)
    store.write("artifacts/markers/bad.json", json.dumps(content).encode())
    (note,) = mirror.fetch()
    assert "that job runs again" in note
    assert files(mirror.folder) == []
