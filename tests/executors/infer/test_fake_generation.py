"""The engine of generations, with the stand-in for a model: queue, resume, failures, files."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.executors._video.clips import read_frames
from raysandbox.executors._video.generation import generating
from raysandbox.executors.infer import _videos
from raysandbox.executors.infer.fake import FakeInference
from tests.executors.video.in_process import InProcessSession, InProcessWorkers, Killed

PROMPTS = ["a cat", "b/c 'd' \"e\"", "😀", "x" * 300, "last one"]


@pytest.fixture
def make(tmp_path):
    """Runs a generation of ten videos in a folder; returns the session and the output's folder."""
    (tmp_path / "prompts.txt").write_text("\n".join([*PROMPTS, PROMPTS[0]]) + "\n", encoding="utf-8")

    def run(name="run", *, workers=None, use_cache=False, session=None, **more):
        session = session or InProcessSession(tmp_path / name, workers or InProcessWorkers(), use_cache=use_cache)
        config = {
            "prompts": str(tmp_path / "prompts.txt"),
            "videos_per_prompt": 2,
            "seconds": 0,
            "contact_sheet": False,
            "output_dir": str(tmp_path / name / "videos"),
            **more,
        }
        return session, Path(FakeInference(**config).infer(session))

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


def rows(session: InProcessSession) -> list[dict]:
    return [json.loads(line) for line in (session.artifacts / "videos.jsonl").read_text().splitlines()]


def test_every_video_once_with_its_row(make, caplog):
    session, folder = make(stall_timeout_s=7)
    found = contents(folder)
    assert len(found) == 10
    assert "a cat-0.mp4" in found
    assert "😀-1.mp4" in found
    assert "prompts: 1 entries of" in caplog.text
    noted = rows(session)
    assert [(row["text"], row["index"]) for row in noted] == [(text, index) for text in PROMPTS for index in (0, 1)]
    for row in noted:
        (path,) = row["videos"]
        assert (session.artifacts / path).read_bytes() == found[row["file"]]
        assert read_frames(session.artifacts / path).shape == (5, 32, 32, 3)
    (found_event,) = session.told("units_found")
    assert (found_event["units"], found_event["found"]) == (10, 0)
    assert sorted(event["file"] for event in session.told("unit_done")) == sorted(found)
    assert {event["seed"] for event in session.told("unit_done")} == {row["seed"] for row in noted}
    assert session.metrics["videos_made"] == session.metrics["videos_done"] == 10
    assert session.metrics["eta_s"] == 0
    assert session.workers.options[0]["elastic"] is True
    assert session.workers.options[0]["stall_timeout_s"] == 7
    assert not session.quarantine.exists()


def test_videos_do_not_depend_on_workers_order_or_other_videos(make):
    _, folder = make("one")
    expected = contents(folder)
    for number, order in ((1, 5), (2, 6), (4, 7)):
        _, other = make(f"order{order}", workers=InProcessWorkers(number, order))
        assert contents(other) == expected
    _, fewer = make("fewer", prompt_limit=1, videos_per_prompt=1)
    assert contents(fewer) == {"a cat-0.mp4": expected["a cat-0.mp4"]}
    _, otherwise = make("seed", seed=1)
    assert not set(contents(otherwise).values()) & set(expected.values())


def test_a_killed_driver_costs_nothing_that_was_done(make):
    _, folder = make("whole")
    expected = contents(folder)
    session = InProcessSession(folder.parent.parent / "killed", InProcessWorkers(2, 3, kill_after=6), use_cache=False)
    with pytest.raises(Killed):
        make("killed", session=session)
    session.workers = InProcessWorkers(1, 4)
    _, folder = make("killed", session=session)
    assert contents(folder) == expected
    assert [event["found"] for event in session.told("units_found")] == [0, 6]
    made = [event["file"] for event in session.told("unit_done")]
    assert len(made) == len(set(made)) == 10


def test_the_default_folder_survives_a_kill_too(make, tmp_path):
    session = InProcessSession(tmp_path / "run", InProcessWorkers(kill_after=6), use_cache=False)
    with pytest.raises(Killed):
        make(session=session, output_dir=None)
    session.workers = InProcessWorkers()
    kept = {path.name for path in session.artifacts.iterdir()}
    assert kept <= FakeInference.kept_artifacts  # what a job that is tried again begins with
    _, folder = make(session=session, output_dir=None)
    assert folder == session.artifacts / "generated_videos"
    assert len(contents(folder)) == 10
    assert session.told("units_found")[-1]["found"] == 6
    assert sorted(path.name for path in session.artifacts.parent.iterdir()) == ["00-generate"]
    assert all((session.artifacts / row["videos"][0]).is_file() for row in rows(session))


def test_only_what_changed_is_made_again(make):
    session, folder = make()
    (folder / "a cat-1.mp4").write_bytes(b"truncated")
    (folder / "last one-0.mp4").unlink()
    _, folder = make(session=session)
    assert sorted(unit.file for unit in session.workers.done[10:]) == ["a cat-1.mp4", "last one-0.mp4"]
    before = contents(folder)
    make(session=session, num_frames=6)
    assert len(session.workers.done) == 22
    assert contents(folder).keys() == before.keys()
    assert not set(contents(folder).values()) & set(before.values())


def test_runs_share_videos_through_the_cache(make, tmp_path):
    session, folder = make("one", use_cache=True)
    other = InProcessSession(tmp_path / "two", use_cache=True)
    other.cache_dir = session.cache_dir
    _, second = make("two", session=other, videos_per_prompt=3)
    assert len(other.workers.done) == 5
    assert contents(folder).items() <= contents(second).items()
    assert other.metrics["videos_reused"] == 10
    assert other.told("units_found")[0]["cached"] == 10
    third = InProcessSession(tmp_path / "three", use_cache=False)
    third.cache_dir = session.cache_dir
    make("three", session=third)
    assert len(third.workers.done) == 10


def test_what_fails_for_good_is_in_quarantine_and_the_rest_is_made(make, tmp_path):
    session = InProcessSession(tmp_path / "run", use_cache=False)
    with pytest.raises(JobFailed) as caught:
        make(session=session, fail_on=["a cat-1.mp4", "😀-0.mp4"])
    message = str(caught.value)
    assert message.startswith("2 of 10 videos could not be made, max_failed allows 0:\n  😀-0.mp4: the fake generation")
    assert "--resume" in message
    quarantined = [json.loads(line) for line in (session.quarantine / "generation.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["index"]) for row in quarantined] == [("😀", 0), ("a cat", 1)]
    assert all("fails, as fail_on says" in row["reason"] for row in quarantined)
    assert sorted(event["file"] for event in session.told("unit_failed")) == ["a cat-1.mp4", "😀-0.mp4"]
    assert len(contents(tmp_path / "run" / "videos")) == 8
    _, folder = make(session=session)  # the same job, mended: only these are made
    assert len(contents(folder)) == 10
    assert session.told("units_found")[-1]["found"] == 8
    assert not (session.quarantine / "generation.jsonl").exists()


def test_a_budget_of_failures(make):
    session, folder = make(fail_on=["a cat-1.mp4", "😀-0.mp4"], max_failed=2)
    assert len(contents(folder)) == len(rows(session)) == 8
    assert session.metrics["videos_failed"] == 2
    session, folder = make("share", fail_on=["a cat-1.mp4", "😀-0.mp4"], max_failed=0.2)
    assert len(contents(folder)) == 8
    with pytest.raises(JobFailed, match="max_failed allows 1:"):
        make("less", fail_on=["a cat-1.mp4", "😀-0.mp4"], max_failed=0.19)


def test_tries_that_fail_are_tried_again(make):
    session, folder = make(fail_on=["a cat-1.mp4"], bad_tries=2)
    assert len(contents(folder)) == 10
    assert not session.told("unit_failed")


@pytest.mark.parametrize("made", [0, 7])
def test_where_nothing_more_can_be_made_the_rest_is_not_tried(make, tmp_path, made):
    session = InProcessSession(tmp_path / "run", use_cache=False)
    names = [f"{text}-{index}.mp4" for index in range(30) for text in ("a cat", "😀", "last one")][made:]
    (tmp_path / "few.txt").write_text("a cat\n😀\nlast one\n")
    with pytest.raises(
        JobFailed, match="10 of 90 videos could not be made, max_failed allows 0, and 10 failed in a row"
    ):
        make(session=session, prompts=str(tmp_path / "few.txt"), videos_per_prompt=30, fail_on=names)
    assert len(session.told("unit_done")) == made


def test_failures_between_others_are_no_reason_to_end(make, tmp_path):
    session = InProcessSession(tmp_path / "run", use_cache=False)
    (tmp_path / "one.txt").write_text("a cat\n")
    names = [f"a cat-{index}.mp4" for index in range(30) if index % 10]
    with pytest.raises(JobFailed, match=r"27 of 30 videos could not be made, max_failed allows 0:"):
        make(session=session, prompts=str(tmp_path / "one.txt"), videos_per_prompt=30, fail_on=names)
    assert len(session.told("unit_done")) == 3


class Elsewhere(InProcessWorkers):
    """Workers whose videos are seen here after some seconds, or never."""

    def __init__(self, folder: Path, seconds: float | None) -> None:
        super().__init__()
        self.folder, self.seconds = folder, seconds

    def map(self, work, units, **options):
        for index, result in super().map(work, units, **options):
            here = self.folder / units[index].file
            there = here.rename(here.with_name("elsewhere"))
            if self.seconds is not None:
                threading.Timer(self.seconds, there.rename, [here]).start()
            yield index, result


def test_videos_that_other_nodes_keep_to_themselves_are_missed_at_the_first(make, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "_PATIENCE_S", 0.1)
    workers = Elsewhere(tmp_path / "run" / "videos", None)
    with pytest.raises(JobFailed, match=r"a video that a worker made is not in .*a cat-0.* storage that all of them"):
        make(workers=workers)
    assert len(workers.done) == 1


def test_videos_that_are_seen_later_count(make, tmp_path):
    _, folder = make(workers=Elsewhere(tmp_path / "run" / "videos", 0.3), prompt_limit=1)
    assert len(contents(folder)) == 2


def test_counts_by_dimension(make, tmp_path):
    info = [
        {"prompt_en": "a", "dimension": ["temporal_flickering", "scene"]},
        {"prompt_en": "b", "dimension": ["scene"]},
    ]
    (tmp_path / "info.json").write_text(json.dumps(info))
    _, folder = make(prompts=str(tmp_path / "info.json"), videos_per_prompt={"temporal_flickering": 4, "default": 1})
    assert sorted(contents(folder)) == ["a-0.mp4", "a-1.mp4", "a-2.mp4", "a-3.mp4", "b-0.mp4"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"temporal_flickerng": 25}, "no prompt of .* 'temporal_flickerng'; did you mean 'temporal_flickering'"),
        ({"mine": 2, "zzz": 2}, "'zzz'; they are mine, scene"),
    ],
)
def test_a_misspelt_dimension_is_refused(make, tmp_path, counts, message):
    (tmp_path / "info.json").write_text(json.dumps([{"prompt_en": "a", "dimension": ["scene", "mine"]}]))
    with pytest.raises(UserError, match=message):
        make(prompts=str(tmp_path / "info.json"), videos_per_prompt=counts)
    with pytest.raises(UserError, match=r"prompts.txt names no dimensions, so that 'scene' has no meaning"):
        make(videos_per_prompt={"default": 1, "scene": 2})
    assert len(contents(make(videos_per_prompt={"default": 1})[1])) == 5


def test_a_dimension_that_only_other_prompts_have_is_said(make, tmp_path, caplog):
    info = [{"prompt_en": "a", "dimension": ["scene"]}, {"prompt_en": "b", "dimension": ["color"]}]
    (tmp_path / "info.json").write_text(json.dumps(info))
    counts = {"default": 1, "temporal_flickering": 25, "color": 2}
    _, folder = make(prompts=str(tmp_path / "info.json"), prompt_limit=1, videos_per_prompt=counts)
    assert list(contents(folder)) == ["a-0.mp4"]
    assert "has the dimension temporal_flickering" in caplog.text


def test_videos_that_are_not_wanted_any_more_go_with_a_word(make, caplog):
    session, _ = make()
    assert session.told("units_found")[-1]["removed"] == 0
    assert "are removed" not in caplog.text
    make(session=session, seed=1, prompt_limit=1)
    assert session.told("units_found")[-1]["removed"] == 10
    assert "10 videos of an earlier generation" in caplog.text
    assert "'a cat-0.mp4'" in caplog.text


def test_videos_are_not_compared_with_themselves(make, tmp_path):
    _, folder = make()
    (tmp_path / "link").symlink_to(folder.parent)
    for same in (folder, tmp_path / "link" / "videos", f"{folder}/../videos/"):
        with pytest.raises(ValueError, match="compare_with: is the output_dir"):
            FakeInference(prompts="p.txt", output_dir=str(folder), compare_with=str(same))
    own = InProcessSession(tmp_path / "own")
    _, folder = make(session=own, output_dir=None)
    with pytest.raises(UserError, match="compare_with: is the output_dir"):
        make(session=own, output_dir=None, compare_with=str(folder))


def test_another_pyav_makes_videos_anew(make, monkeypatch):
    session, _ = make()
    monkeypatch.setattr(_videos, "library_versions", lambda *names: dict.fromkeys(names, "0"))
    make(session=session)
    assert session.told("units_found")[-1]["found"] == 0


def test_before_and_after(make, tmp_path):
    _, earlier = make("before", seed=1, contact_sheet=True)
    session, _ = make("after", compare_with=str(earlier), contact_sheet=True)
    assert (session.artifacts / "contact_sheet.png").stat().st_size > 1000
    assert len(list((session.artifacts / "previews").iterdir())) == len(PROMPTS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"compare_with: no file of .*empty is named like .* 'a cat-0\.mp4'"):
        make("other", compare_with=str(tmp_path / "empty"), contact_sheet=True)
    assert not (tmp_path / "other" / "videos").exists()  # said before anything is made
    with pytest.raises(UserError, match="compare_with: there is no folder"):
        make("none", compare_with=str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("videos_per_prompt", 0), ("videos_per_prompt", {"scene": 0}), ("max_failed", 1.5), ("seed", -1)],
)
def test_settings_that_make_no_sense(field, value):
    with pytest.raises(ValueError, match=field):
        FakeInference(prompts="p.txt", **{field: value})


def test_paths_are_known_before_anything_runs():
    refs = {ref.key[0]: ref.role for ref in path_refs(FakeInference, {**FakeInference.example, "compare_with": "x"})}
    assert refs == {"prompts": PathRole.INPUT, "output_dir": PathRole.OUTPUT, "compare_with": PathRole.INPUT}


def test_the_benchmark_of_generation_runs():
    script = Path(__file__).parents[3] / "scripts/bench/generation"
    command = [sys.executable, str(script), "--units", "6", "--seconds", "0.2", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert re.search(r"^ +1 .* at least 95%: (reached|MISSED)$", done.stdout, re.MULTILINE), done.stdout + done.stderr
