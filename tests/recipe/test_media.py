"""Recipes over media: bad files, units of work, the choice of the engine."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysandbox.core.errors import BadRowsError
from raysandbox.recipe.api import process
from raysandbox.recipe.plan import choose_engine, plan_input
from raysandbox.recipe.schema import Recipe
from tests.ops import tiny_clips

STEPS = [
    {"video_duration_filter": {"min_duration": 0.75}},
    {"video_resolution_filter": {"max_width": 1280}},
    {"video_motion_score_filter": {"min_score": 0.0}},
]
CORRUPT = {
    7: "cut",
    23: "cut",
    41: "cut",
    60: "noise",
    61: "noise",
    62: "noise",
    90: "noise",
    120: "",
    121: "",
    199: "",
}
MISSING = (33, 150)
PIPE = 77
TIMEOUT_S = 3.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """200 clips, every third too short; 10 corrupt, 2 missing, and a pipe, which nobody waits for."""
    folder = tmp_path_factory.mktemp("clips")
    made = [
        tiny_clips.save_clip(folder / f"{seconds}-{step}.mp4", step, seconds=seconds, fps=4, step=step)
        for seconds, step in ((0.5, 1), (1.0, 1), (1.0, 3))
    ]
    whole = (folder / made[0]).read_bytes()
    for number in range(200):
        target = folder / f"clip{number:03}.mp4"
        if number in CORRUPT:
            broken = {"cut": whole[: len(whole) // 2], "noise": bytes(range(256)) * 20, "": b""}
            target.write_bytes(broken[CORRUPT[number]])
        elif number == PIPE:
            os.mkfifo(target)
        elif number not in MISSING:
            shutil.copy(made[number % 3], target)
    rows = [{"id": number, "text": "", "videos": [f"clip{number:03}.mp4"]} for number in range(200)]
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe_of(clips, target, **keys):
    source = {"dataset_path": str(clips / "clips.jsonl"), "export_path": str(target), "process": STEPS}
    return {**source, "row_timeout_s": TIMEOUT_S, **keys}


@pytest.fixture(params=["local", "ray"])
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


def test_bad_files_are_set_aside_and_the_others_counted(clips, tmp_path, engine):
    result = process(recipe_of(clips, tmp_path / "kept.jsonl", max_bad_rows=13), engine=engine, cache=False)
    bad = {*CORRUPT, *MISSING, PIPE}
    short = {number for number in range(200) if number % 3 == 0} - bad
    good = 200 - len(bad) - len(short)
    assert (result.engine, result.rows_in, result.rows_out, result.quarantined) == (engine, 200, good, 13)
    assert [(op.rows_in, op.rows_out, op.failed) for op in result.ops] == [
        (200, good, 13),
        (good, good, 0),
        (good, good, 0),
    ]
    kept = [json.loads(line)["id"] for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert kept == sorted({*range(200)} - bad - short)
    quarantine = [json.loads(line) for line in Path(result.quarantine).read_text().splitlines()]
    reasons = {json.loads(row["raw"])["id"]: row["reason"] for row in quarantine}
    assert reasons.keys() == bad
    assert reasons[33] == "clip033.mp4: no such file"
    assert reasons[120] == "clip120.mp4: is empty"
    assert reasons[7].startswith("clip007.mp4: cannot be decoded: ")
    assert reasons[PIPE] == f"clip{PIPE:03}.mp4: is not a regular file"


def test_too_many_bad_files_end_the_run_and_are_named(clips, tmp_path, engine):
    with pytest.raises(BadRowsError) as error:
        process(recipe_of(clips, tmp_path / "kept.jsonl", max_bad_rows=5), engine=engine, cache=False)
    assert "clip007.mp4: cannot be decoded" in str(error.value)
    assert not (tmp_path / "kept.jsonl").exists()


def plan_of(folder, rows, process, row=None):
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row or {"text": "x", "videos": [f"{n:05}.mp4"]}) + "\n" for n in range(rows)))
    return plan_input(Recipe(dataset_path=str(path), process=process))


@pytest.mark.parametrize(
    ("step", "rows", "most"),
    [("video_duration_filter", 60, 8), ("video_duration_filter", 1000, 17), ("image_shape_filter", 10_000, 130)],
)
def test_units_of_media_are_small(tmp_path, step, rows, most):
    plan = plan_of(tmp_path, rows, [{step: {}}])
    assert len(plan.tasks) >= 8
    assert rows / len(plan.tasks) <= most


@pytest.mark.parametrize("rows", [0, 3])
def test_files_without_rows_are_planned(tmp_path, rows):
    table = pa.table({"images": pa.array([["x.png"]] * rows, pa.list_(pa.string()))})
    pq.ParquetWriter(tmp_path / "a.parquet", table.schema).close()  # without a row group
    with pq.ParquetWriter(tmp_path / "b.parquet", table.schema) as writer:
        if rows:
            writer.write_table(table)
    plan = plan_input(Recipe(dataset_path=str(tmp_path), process=[{"image_shape_filter": {}}]))
    assert len(plan.tasks) == (rows > 0)


def test_media_count_when_the_engine_is_chosen(tmp_path):
    few, many = (
        plan_of(tmp_path, 50, [{"video_duration_filter": {}}]),
        plan_of(tmp_path, 100, [{"video_duration_filter": {}}]),
    )
    texts = plan_of(tmp_path, 100, [{"text_length_filter": {}}])
    assert [choose_engine("auto", plan.size) for plan in (few, many, texts)] == ["local", "ray", "local"]
    assert len(texts.tasks) == 1
