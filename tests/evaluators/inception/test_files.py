"""Files of data sets are found or named, surveyed once, and what is kept of them is checked."""

import os
from pathlib import Path

import numpy as np
import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.evaluators._inception import survey as survey_module
from raysandbox.evaluators._inception.cache import ArrayCache
from raysandbox.evaluators._inception.media import MediaFile, Source
from raysandbox.evaluators._inception.survey import Known, survey
from raysandbox.recipe.scoring import DatasetScorers
from tests.evaluators.inception.tiny_detectors import save_rows
from tests.evaluators.inception.workers import InProcess
from tests.ops.tiny_clips import save_clip, save_picture


def files(rows: str, mm_dir: str = "", image_key: str | None = None, video_key: str = "videos") -> list[str]:
    found = Source("fake", rows, mm_dir, video_key, image_key).files(DatasetScorers())
    return [("image:" if file.is_image else "") + file.path for file in found]


@pytest.fixture
def tree(workspace: Path) -> Path:
    for name in ("data/a.mp4", "data/deep/b.mp4", "media/a.mp4", "media/deep/b.mp4", "own.mp4"):
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return workspace


def test_relative_paths_start_at_the_data_or_at_mm_dir(tree):
    rows = save_rows(tree / "data" / "rows.jsonl", ["a.mp4", "deep/b.mp4"], ["a.mp4"], [str(tree / "own.mp4")])
    data, media, own = str(tree / "data"), str(tree / "media"), str(tree / "own.mp4")
    assert files(rows) == [f"{data}/a.mp4", f"{data}/deep/b.mp4", f"{data}/a.mp4", own]
    assert files("data/*.jsonl", "media") == [f"{media}/a.mp4", f"{media}/deep/b.mp4", f"{media}/a.mp4", own]
    assert files("data", "./media") == [f"{media}/a.mp4", f"{media}/deep/b.mp4", f"{media}/a.mp4", own]
    save_rows(tree / "data" / "rows.jsonl", {"clips": "deep/b.mp4"})
    assert files(rows, "media", video_key="clips") == [f"{media}/deep/b.mp4"]  # one path, not in a list


def test_relative_paths_may_start_at_the_current_directory(tree):
    rows = save_rows(tree / "data" / "rows.jsonl", ["media/a.mp4"])
    assert files(rows) == [str(tree / "media" / "a.mp4")]


def test_a_missing_file_is_no_other_one_of_its_name(tree):
    gone = f"{tree}/data/media/a.mp4"
    with pytest.raises(JobFailed, match="1 of the 1 files"):
        files(save_rows(tree / "data" / "rows.jsonl", [gone]))
    (tree / "media" / "only.mp4").touch()
    with pytest.raises(JobFailed, match="1 of the 1 files"):
        files(save_rows(tree / "data" / "rows.jsonl", [f"{tree}/data/only.mp4"]), "media")


def test_paths_of_a_mix_start_at_the_folder_of_their_row(tree):
    for folder in ("data", "media"):
        save_rows(tree / folder / "rows.jsonl", {"clips": ["a.mp4"]})
    found = files("data/rows.jsonl media/rows.jsonl", video_key="clips")
    assert sorted(found) == [f"{tree}/data/a.mp4", f"{tree}/media/a.mp4"]


def test_images_are_taken_where_they_are_asked_for(tree):
    rows = save_rows(tree / "rows.jsonl", {"videos": ["own.mp4"], "images": ["data/a.mp4"]}, {"images": None})
    assert files(rows) == [str(tree / "own.mp4")]
    assert files(rows, image_key="images") == [str(tree / "own.mp4"), f"image:{tree / 'data' / 'a.mp4'}"]


def test_what_is_missing_is_named(tree):
    rows = save_rows(tree / "rows.jsonl", ["gone.mp4", "own.mp4"])
    with pytest.raises(JobFailed, match=r"fake_data_path: 1 of the 2 files (.*)gone\.mp4 \(set fake_mm_dir"):
        files(rows)
    with pytest.raises(JobFailed, match=r"none of its 1 rows has a path in column clips \(set video_key"):
        files(rows, video_key="clips")
    with pytest.raises(JobFailed, match="names no files: none of its 0 rows"):
        files(save_rows(tree / "empty.jsonl"))


def test_survey_counts_and_digests_once(tmp_path, monkeypatch):
    monkeypatch.setattr(survey_module, "_UNIT", 2)
    clip, copy = save_clip(tmp_path / "a.mp4", 1), tmp_path / "copy.mp4"
    copy.write_bytes(Path(clip).read_bytes())
    picture = save_picture(tmp_path / "p.png", 1)
    media = [MediaFile(clip, False), MediaFile(str(copy), False), MediaFile(picture, True), MediaFile(clip, False)]
    workers, cache = InProcess(), ArrayCache(tmp_path / "cache")
    found = survey(media, workers, cache)
    assert [found[file].frames for file in media] == [16, 16, 1, 16]
    assert found[media[0]] == found[media[1]] == found[media[3]]
    assert workers.units == 2
    assert survey(media, workers, cache) == found
    assert workers.units == 2
    os.utime(picture, (1, 1))
    assert survey(media, workers, cache) == found
    assert workers.units == 3
    assert isinstance(found[media[0]], Known)


def test_survey_names_what_it_cannot_read(tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    media = [MediaFile(save_clip(tmp_path / "a.mp4", 1), False), MediaFile(str(bad), False)]
    with pytest.raises(JobFailed, match=r"1 of 2 files cannot be read: (.*)bad\.mp4 cannot be decoded"):
        survey(media, InProcess(), ArrayCache(tmp_path / "cache"))


def test_damaged_arrays_are_not_there(tmp_path):
    cache = ArrayCache(tmp_path)
    cache.put("abc", {"features": np.arange(1000.0)})
    (file,) = tmp_path.rglob("*.npz")
    content = bytearray(file.read_bytes())
    assert cache.get("abc")["features"].sum() == 499500
    content[4000] ^= 1
    file.write_bytes(content)
    assert ArrayCache(tmp_path).find("abc") is None
    file.write_bytes(content[:100])
    assert ArrayCache(tmp_path).find("abc") is None
    with pytest.raises(JobFailed, match="run again"):
        cache.get("abc")


def test_arrays_of_earlier_runs_are_read_where_that_is_wanted(tmp_path):
    ArrayCache(tmp_path).put("abc", {"x": np.ones(2)})
    blind = ArrayCache(tmp_path, readable=False)
    assert blind.find("abc") is None
    blind.put("abc", {"x": np.zeros(2)})
    assert blind.get("abc")["x"].sum() == 0
