"""Data-Juicer's rows become a trainer's entries; nothing is left out without being named."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors.data.dj_to_easyanimate_video_dataset_conversion import VideoDatasetConversion
from raysandbox.hooks.general_data_executor import GeneralDataExecutorHook
from raysandbox.recipe.api import process
from raysandbox.recipe.scoring import DatasetScorers


@pytest.fixture
def work(workspace: Path) -> SimpleNamespace:
    """A WorkSession that keeps what is reported."""
    reported: dict[str, float] = {}
    return SimpleNamespace(
        report=lambda metrics, step=None: reported.update(metrics),
        reported=reported,
        scorers=DatasetScorers(engine="local", quarantine_dir=workspace / "quarantine"),
        quarantine=workspace / "quarantine",
    )


def clips(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"mp4")


def write_rows(path: str, rows: list[dict[str, Any]]) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def convert(work: SimpleNamespace, path: Any, **more: Any) -> list[list[dict[str, str]]]:
    written = VideoDatasetConversion(dataset_path=path, export_path="out", **more).execute(work)
    return [json.loads(Path(one).read_text()) for one in written]


def entry(path: str, text: str) -> dict[str, str]:
    return {"file_path": str(Path(path).absolute()), "text": text, "type": "video"}


def test_marks_go_and_relative_paths_start_at_the_data_set(work) -> None:
    clips("data/a.mp4", "data/clips/b.mp4")
    path = write_rows(
        "data/train.jsonl",
        [
            {"videos": ["a.mp4"], "text": "<__dj__video> a red ball <|__dj__eoc|>"},
            {"videos": [str(Path("data/clips/b.mp4").absolute())], "text": "no marks, 红"},
        ],
    )
    (entries,) = convert(work, path)
    assert entries == [entry("data/a.mp4", "a red ball"), entry("data/clips/b.mp4", "no marks, 红")]
    assert Path("out/train_ea_fmt.json").is_file()
    assert work.reported["videos"] == 2
    assert not Path("quarantine").exists()


def test_each_video_of_a_row_is_an_entry_with_its_part_of_the_text(work) -> None:
    clips("a.mp4", "b.mp4", "c.mp4")
    path = write_rows(
        "rows.jsonl",
        [
            {"videos": ["a.mp4", "b.mp4"], "text": "<__dj__video> one <|__dj__eoc|> <__dj__video> two <|__dj__eoc|>"},
            {"videos": ["a.mp4", "c.mp4"], "text": "<__dj__video> both"},
        ],
    )
    (entries,) = convert(work, path)
    captions = [(Path(each["file_path"]).name, each["text"]) for each in entries]
    assert captions == [("a.mp4", "one"), ("b.mp4", "two"), ("a.mp4", "both"), ("c.mp4", "both")]


def test_what_is_left_out_is_counted_and_named(work, caplog) -> None:
    clips("a.mp4")
    rows = [
        {"videos": ["a.mp4", "gone.mp4"], "text": "x"},
        {"videos": [], "text": "no video"},
        {"text": "no column"},
        {"videos": ["a.mp4"], "text": None},
    ]
    (entries,) = convert(work, write_rows("rows.jsonl", rows))
    assert [each["text"] for each in entries] == ["x", ""]
    counts = {"rows": 4, "videos": 2, "rows_without_video": 2, "missing_videos": 1, "videos_without_text": 1}
    assert work.reported == counts
    kept = [json.loads(line) for line in Path("quarantine/rows_ea_fmt.json.quarantine").read_text().splitlines()]
    assert [(each["row"], each["reason"]) for each in kept] == [
        (1, "the video is missing"),
        (2, "no video"),
        (3, "no video"),
    ]
    assert "gone.mp4" in caplog.text
    assert "row 2: no video; row 3" in caplog.text
    assert "1 videos have no cap" in caplog.text
    clips("gone.mp4")
    Path("rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    convert(work, "rows.jsonl")
    assert not Path("quarantine/rows_ea_fmt.json.quarantine").exists()


def test_without_any_video_nothing_is_written(work) -> None:
    clips("a.mp4")
    good = write_rows("good.jsonl", [{"videos": ["a.mp4"], "text": "x"}])
    bad = write_rows("bad.jsonl", [{"videos": ["gone.mp4"], "text": "x"}])
    with pytest.raises(JobFailed, match=r"no row of bad\.jsonl has a video .*row 1: the video is missing .*gone\.mp4"):
        convert(work, [good, bad])
    assert not Path("out").exists()
    with pytest.raises(JobFailed, match="it has no rows"):
        convert(work, write_rows("empty.jsonl", []))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"videos": {"a": 1}, "text": "x"}, "'videos' holds dict, not a list of paths"),
        ({"videos": [1], "text": "x"}, "'videos' holds int, not a path"),
        ({"videos": ["a.mp4"], "text": 5}, "'text' holds int, not text"),
    ],
)
def test_columns_of_other_kinds_are_named(work, row, message) -> None:
    with pytest.raises(UserError, match=message):
        convert(work, write_rows("rows.jsonl", [row]))


def test_other_columns_and_another_folder_of_videos(work) -> None:
    clips("store/clips/a.mp4", "data/b.mp4")
    rows = [{"clip": "clips/a.mp4", "caption": "x"}, {"clip": "b.mp4", "caption": "y"}]
    path = write_rows("data/rows.jsonl", rows)
    (entries,) = convert(work, path, text_key="caption", video_key="clip", video_dir="store")
    assert entries == [entry("store/clips/a.mp4", "x"), entry("data/b.mp4", "y")]


def test_several_data_sets_of_other_formats(work) -> None:
    clips("a.mp4")
    first = write_rows("first.jsonl", [{"videos": ["a.mp4"], "text": "x"}])
    process({"dataset_path": first, "export_path": "second.parquet", "process": []})
    assert [len(entries) for entries in convert(work, [first, "second.parquet"])] == [1, 1]
    with pytest.raises(UserError, match="two data sets would be written to out/first_ea_fmt"):
        convert(work, [first, "elsewhere/first.parquet"])


def test_the_example_travels_and_its_paths_are_planned() -> None:
    example = yaml.safe_load(yaml.safe_dump(dict(VideoDatasetConversion.example)))
    name = "dj_to_easyanimate_video_dataset_conversion"
    made = GeneralDataExecutorHook.component({"type": name, **example})
    assert pickle.loads(pickle.dumps(made)) == made == VideoDatasetConversion(**made.model_dump())
    roles = [ref.role for ref in path_refs(VideoDatasetConversion, {**example, "dataset_path": ["a", "b"]})]
    assert roles == [PathRole.INPUT, PathRole.INPUT, PathRole.OUTPUT]


@pytest.mark.parametrize("written", ["a.mp4", "{data}/a.mp4", "{data}/clips/../a.mp4"])
def test_a_missing_video_is_no_other_one_of_its_name(work, written) -> None:
    clips("a.mp4", "store/b.mp4", "data/b.mp4", "data/clips/c.mp4")
    rows = [
        {"videos": [written.format(data=Path("data").absolute())], "text": "gone"},
        {"videos": ["b.mp4"], "text": "relative"},
        {"videos": [str(Path("data/b.mp4").absolute())], "text": "absolute"},
    ]
    (entries,) = convert(work, write_rows("data/rows.jsonl", rows), video_dir="store")
    assert entries == [entry("store/b.mp4", "relative"), entry("data/b.mp4", "absolute")]
    assert work.reported["missing_videos"] == 1
    assert convert(work, "data/rows.jsonl") == [[entry("data/b.mp4", "relative"), entry("data/b.mp4", "absolute")]]


def test_paths_of_a_mix_start_at_the_folder_of_their_row(work) -> None:
    clips("one/a.mp4", "two/a.mp4", "a.mp4")
    for folder in ("one", "two"):
        write_rows(f"{folder}/rows.jsonl", [{"videos": ["a.mp4"], "clip": "a.mp4", "text": folder}])
    expected = [entry("one/a.mp4", "one"), entry("two/a.mp4", "two")]
    for key in ("videos", "clip"):
        (entries,) = convert(work, "0.5 one/rows.jsonl 0.5 two/rows.jsonl", video_key=key)
        assert sorted(entries, key=lambda each: each["text"]) == expected


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/part-*.jsonl", "part"),
        ("data/*.jsonl", "data"),
        ("data/**/part-[0-9].jsonl", "data"),
        ("data", "data"),
        ("data/", "data"),
        ("1.0 data/part-1.jsonl", "part-1"),
        ("data/part-2.jsonl", "part-2"),
    ],
)
def test_names_of_globs_and_folders(work, source, name) -> None:
    clips("data/a.mp4")
    for number in (1, 2):
        write_rows(f"data/part-{number}.jsonl", [{"videos": ["a.mp4"], "text": "x"}])
    written = VideoDatasetConversion(dataset_path=source, export_path="out").execute(work)
    assert written == [f"out/{name}_ea_fmt.json"]
    assert [path.name for path in Path("out").iterdir()] == [f"{name}_ea_fmt.json"]


def test_a_mix_is_named_by_what_it_is(work) -> None:
    clips("a.mp4")
    for name in ("clips", "clips2"):
        write_rows(f"{name}.jsonl", [{"videos": ["a.mp4"], "text": name}])
    mixes = ["0.5 clips.jsonl 0.5 clips2.jsonl", "clips.jsonl clips2.jsonl"]
    written = VideoDatasetConversion(dataset_path=[*mixes, "clips2.jsonl"], export_path="out").execute(work)
    names = [Path(path).name for path in written]
    assert len(set(names)) == 3
    assert names[2] == "clips2_ea_fmt.json"
    assert all(name.startswith("mix_") for name in names[:2])
    assert len(json.loads(Path(written[0]).read_text())) == 2
