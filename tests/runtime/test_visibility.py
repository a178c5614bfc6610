"""What nodes see, without nodes: the parts of a visit."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysandbox.runtime import visibility
from raysandbox.runtime.session import Node
from raysandbox.runtime.shared_storage import Probe, Seen, answer, place, remove

NODE = Node("10.0.0.7", {"CPU": 4.0})


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "_known", set())


def visit(expected, folders):
    probes = {folder: place(folder, folder) for folder in folders}
    missing, seen = visibility._look_around(expected, list(probes.values()), "node-id")
    problems = visibility._told(NODE, "node-id", (expected, folders), probes, missing, seen)
    for probe in probes.values():
        remove(probe)
    return problems


def test_what_is_seen_is_remembered_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    expected = visibility._expected(str(tmp_path))
    assert visit([expected], [str(tmp_path)]) == []
    assert visibility._known == {("node-id", str(tmp_path)), ("node-id", f"{tmp_path}/")}
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_not_there_or_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "_SETTLE_S", 0.0)
    file, folder = tmp_path / "a.txt", tmp_path / "model"
    file.write_text("abc")
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"12345")
    expected = [visibility._expected(str(path)) for path in (file, folder)]
    file.unlink()
    (folder / "weights.bin").write_bytes(b"123")
    missing, other = visit(expected, [])
    assert missing.startswith(f"node 10.0.0.7: {file}: is not there (put it into the submitted folder")
    assert "weights.bin is another file there (3 bytes; here 5)" in other
    assert visibility._known == set()


def test_a_folder_of_the_same_name_on_another_machine(tmp_path: Path) -> None:
    probe = place("w", str(tmp_path / "mine"))
    Path(probe.file_of()).unlink()  # the node's folder does not hold it
    _, seen = visibility._look_around([], [probe], "node-id")
    [problem] = visibility._told(NODE, "node-id", ([], ["w"]), {"w": probe}, {}, seen)
    assert "it is not the same folder there" in problem
    assert "RAYSANDBOX_ROOT" in problem
    assert not list(tmp_path.iterdir())


def test_what_arrives_a_moment_later_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "_SETTLE_S", 60.0)
    file = tmp_path / "a.txt"
    file.write_text("abc")
    expected = visibility._expected(str(file))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        file.write_text("ab" if len(looks) == 1 else "abc")

    file.unlink()
    monkeypatch.setattr(visibility.time, "sleep", sleep)
    assert visibility._look_around([expected], [], "node-id") == ({}, [])
    assert len(looks) == 2


def test_a_visit_that_ends_too_late_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = place("w", str(tmp_path))

    def late(probe: Probe, who: str) -> Seen:
        seen = answer(probe, who)
        remove(probe)  # the driver waits no more
        return seen

    monkeypatch.setattr(visibility, "answer", late)
    _, [seen] = visibility._look_around([], [probe], "node-id")
    assert (seen.read, seen.wrote) == ("", "")
    assert not list(tmp_path.iterdir())


def test_names_of_hubs_and_urls_are_nothing_to_look_for() -> None:
    assert visibility._expected("some-org/some-model") is None
    assert visibility._expected("s3://bucket/data.jsonl") is None


def test_a_local_ray_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "is_local", lambda: True)
    monkeypatch.setattr(visibility, "_others", lambda resources: pytest.fail("asked"))
    visibility.require_seen("job", ["/nowhere"], ["/nowhere"])
