"""The text-to-video demo's data: the same on every machine, with captions good and bad, clips long and short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysandbox.core.keys import DigestMemo
from raysandbox.evaluators._vbench.suite import read_prompts
from raysandbox.recipe.api import process

ROOT = Path(__file__).parents[3]


def make(out: Path, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts/make_demo_videos"), "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, cwd=ROOT).stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    make(folder)
    return folder


def test_there_are_clips_for_training_and_held_out_and_prompts(data: Path) -> None:
    for name, number in (("demo_videos", 48), ("held_out", 8)):
        rows = [json.loads(line) for line in (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(rows) == number
        assert all((data / path).stat().st_size < 10_000 for row in rows for path in row["videos"])
        assert all(row["text"].startswith("<__dj__video> ") and row["text"].endswith("<|__dj__eoc|>") for row in rows)
    prompts = read_prompts(data / "prompts.json")
    assert len({prompt.text for prompt in prompts}) == 6
    assert {prompt.dimensions for prompt in prompts} == {("temporal_flickering",)}


def test_the_demo_pipelines_find_what_they_select(data: Path, tmp_path: Path) -> None:
    """The high third by language score is English, and enough clips pass the filters of the second pipeline."""
    statistics = [{"language_id_score_filter": {"lang": "", "min_score": 0.0}}, {"video_duration_filter": {}}]
    export = str(tmp_path / "rows.jsonl")
    process(
        {
            "dataset_path": str(data / "demo_videos.jsonl"),
            "export_path": export,
            "keep_stats_in_res_ds": True,
            "process": statistics,
        }
    )
    rows = [json.loads(line) for line in Path(export).read_text(encoding="utf-8").splitlines()]
    found = sorted((row["__dj__stats__"] for row in rows), key=lambda stats: stats["lang_score"])
    assert {stats["lang"] for stats in found[32:]} == {"en"}
    assert found[12]["lang_score"] < 0.6 < found[32]["lang_score"]
    wanted = [each for each in found if each["lang"] == "en" and each["lang_score"] >= 0.7]
    assert len(wanted) > sum(each["video_duration"][0] >= 2 for each in wanted) >= 16


def test_the_same_files_each_time(data: Path, tmp_path: Path) -> None:
    memo = DigestMemo(tmp_path / "memo")
    before = memo.of(data)
    make(tmp_path / "again")
    assert memo.of(tmp_path / "again") == before
    make(tmp_path / "again", "--number", "3", "--seed", "1")
    assert memo.of(tmp_path / "again") != before
