"""Records: what counts as done, whatever was killed, altered or changed."""

import json
import os
from pathlib import Path

import pytest

from raysandbox.core.errors import UserError
from raysandbox.executors._video.generation import records
from raysandbox.executors._video.generation.records import VideoCache, VideoFolder
from raysandbox.executors._video.generation.units import units_of

UNITS = units_of({"a": 2, "b/c": 2}, 0, ["model"])


def writer(content: bytes):
    def write(path: Path) -> tuple[int, float]:
        path.write_bytes(content)
        return 5, 0.25

    return write


def make(folder: Path, units=UNITS) -> None:
    worker = VideoFolder(folder)
    for unit in units:
        worker.add(unit, writer(unit.key.encode()))
    worker.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_what_was_made_is_done(tmp_path):
    assert VideoFolder(tmp_path / "new").finished(UNITS) == {}
    make(tmp_path, UNITS[:3])
    found = VideoFolder(tmp_path).finished(UNITS)
    assert list(found) == [unit.file for unit in UNITS[:3]]
    record = found[UNITS[0].file]
    assert (record.key, record.bytes, record.frames, record.seconds) == (UNITS[0].key, 64, 5, 0.25)
    assert names(tmp_path) == sorted(unit.file for unit in UNITS[:3])


@pytest.mark.parametrize("change", ["truncate", "alter", "remove", "empty", "truncate in the same moment"])
def test_what_is_not_as_it_was_is_made_again(tmp_path, change):
    make(tmp_path)
    path = tmp_path / UNITS[1].file
    content, stat = path.read_bytes(), path.stat()
    if change == "remove":
        path.unlink()
    else:
        path.write_bytes({"alter": b"X" + content[1:], "empty": b""}.get(change, content[:-1]))
    if "same moment" in change:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = VideoFolder(tmp_path).finished(UNITS)
    assert set(found) == {unit.file for unit in UNITS} - {UNITS[1].file}
    make(tmp_path, [UNITS[1]])
    assert len(VideoFolder(tmp_path).finished(UNITS)) == len(UNITS)


def test_a_copy_with_other_times_is_read_and_found_the_same(tmp_path):
    make(tmp_path)
    os.utime(tmp_path / UNITS[0].file, ns=(1, 1))
    assert len(VideoFolder(tmp_path).finished(UNITS)) == len(UNITS)


def test_a_file_of_the_same_size_and_time_is_not_read_again(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.setattr(
        "raysandbox.executors._video.generation.records._sha256", lambda path: pytest.fail(f"read {path}")
    )
    assert len(VideoFolder(tmp_path).finished(UNITS)) == len(UNITS)


def test_videos_of_another_configuration_go_and_other_files_stay(tmp_path):
    make(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mine.mp4").write_text("mine")
    changed = units_of({"a": 1, "d": 1}, 0, ["another model"])
    assert VideoFolder(tmp_path).finished(changed) == {}
    assert names(tmp_path) == ["mine.mp4", "notes.txt"]


def test_a_setting_that_comes_back_finds_nothing_outdated(tmp_path):
    make(tmp_path)
    other = units_of({"a": 2, "b/c": 2}, 0, ["another model"])
    assert VideoFolder(tmp_path).finished(other) == {}
    make(tmp_path, other)
    assert VideoFolder(tmp_path).finished(UNITS) == {}
    assert names(tmp_path) == []
    make(tmp_path, UNITS)
    assert len(VideoFolder(tmp_path).finished(UNITS)) == len(UNITS)


def test_equal_bytes_count_for_every_configuration_that_gave_them(tmp_path):
    other = units_of({"a": 2, "b/c": 2}, 0, ["another model, the same videos"])
    worker = VideoFolder(tmp_path)
    for unit in (*UNITS, *other, *UNITS, *other):
        worker.add(unit, writer(unit.file.encode()))
    for units in (UNITS, other):
        assert [record.key for record in VideoFolder(tmp_path).finished(units).values()] == [unit.key for unit in units]


def test_fewer_prompts_take_the_others_away(tmp_path):
    make(tmp_path)
    kept = units_of({"a": 1}, 0, ["model"])
    assert list(VideoFolder(tmp_path).finished(kept)) == ["a-0.mp4"]
    assert names(tmp_path) == ["a-0.mp4"]


def test_a_file_of_others_with_a_videos_name_is_refused(tmp_path):
    make(tmp_path, UNITS[:1])
    (tmp_path / UNITS[2].file).write_text("mine")
    with pytest.raises(UserError, match=r"output_dir: .* holds 1 files with names of videos .*\('a-1.mp4'\): move"):
        VideoFolder(tmp_path).finished(UNITS)
    assert (tmp_path / UNITS[2].file).read_text() == "mine"


def test_a_worker_that_dies_leaves_nothing_that_counts(tmp_path):
    def dies(path: Path) -> tuple[int, float]:
        path.write_bytes(b"half a vid")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VideoFolder(tmp_path).add(UNITS[0], dies)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    # kill -9 leaves the file, and may leave the record torn, or a record whose rename never came
    make(tmp_path, UNITS[:1])
    notes = tmp_path / ".records"
    (notes / "tmp-0123-dead.mp4").write_bytes(b"half a vid")
    whole = next(notes.glob("*.jsonl")).read_text()
    (notes / "torn.jsonl").write_text(whole.replace("a-0", "a-1")[:-20])
    later = {**json.loads(whole), "key": UNITS[1].key, "file": UNITS[1].file}
    (notes / "early.jsonl").write_text(json.dumps(later) + "\n")
    assert list(VideoFolder(tmp_path).finished(UNITS)) == [UNITS[0].file]
    assert not list(notes.glob("tmp-*"))


def test_records_of_many_workers_count_together(tmp_path):
    for unit in UNITS:
        make(tmp_path, [unit])
    assert len(list((tmp_path / ".records").iterdir())) == len(UNITS)
    assert len(VideoFolder(tmp_path).finished(UNITS)) == len(UNITS)


def test_videos_are_shared_between_runs_by_links(tmp_path):
    unit = UNITS[0]
    cache = VideoCache(tmp_path / "cache")
    first, second = VideoFolder(tmp_path / "one"), VideoFolder(tmp_path / "two")
    assert cache.get(unit.key) is None
    cache.put(first.path / unit.file, first.add(unit, writer(b"video")))
    cache.put(first.path / unit.file, first.finished([unit])[unit.file])  # again: nothing is left behind
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 2
    record = second.adopt(unit, *cache.get(unit.key))
    assert record == second.finished([unit])[unit.file]
    assert os.path.samefile(first.path / unit.file, second.path / unit.file)
    assert VideoCache(tmp_path / "cache", readable=False).get(unit.key) is None


def test_a_shared_video_that_was_altered_does_not_count(tmp_path):
    unit = UNITS[0]
    cache, folder = VideoCache(tmp_path / "cache"), VideoFolder(tmp_path / "one")
    cache.put(folder.path / unit.file, folder.add(unit, writer(b"video")))
    (folder.path / unit.file).write_bytes(b"viDeo")
    assert cache.get(unit.key) is None
    cache.put(folder.path / unit.file, folder.add(unit, writer(b"video")))
    assert cache.get(unit.key) is not None


def test_what_no_run_holds_is_pruned_after_a_while(tmp_path, monkeypatch):
    cache, folder = VideoCache(tmp_path / "cache"), VideoFolder(tmp_path / "one")
    for unit in UNITS[:3]:
        cache.put(folder.path / unit.file, folder.add(unit, writer(unit.key.encode())))
    (folder.path / UNITS[0].file).unlink()
    (folder.path / UNITS[1].file).unlink()
    keys = [unit.key for unit in UNITS[1:]]
    assert cache.prune(keys) == 0  # a folder that was removed a moment ago may come back
    monkeypatch.setattr(records, "_KEPT_S", -1.0)
    assert cache.prune(keys) == 1
    assert [cache.get(unit.key) is not None for unit in UNITS[:3]] == [True, False, True]
    assert sorted(path.stem for path in (tmp_path / "cache").rglob("*.*")) == sorted(
        [unit.key for unit in (UNITS[0], UNITS[2]) for _ in range(2)]
    )


def test_without_links_nothing_is_shared_and_nothing_fails(tmp_path, monkeypatch):
    unit = UNITS[0]
    cache, folder = VideoCache(tmp_path / "cache"), VideoFolder(tmp_path / "one")
    record = folder.add(unit, writer(b"video"))
    cache.put(folder.path / unit.file, record)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    other = VideoFolder(tmp_path / "two")
    assert other.adopt(unit, *cache.get(unit.key)) is None
    assert not list((tmp_path / "two" / ".records").iterdir())
    VideoCache(tmp_path / "third").put(folder.path / unit.file, record)
    assert not [path for path in (tmp_path / "third").rglob("*") if path.is_file()]
