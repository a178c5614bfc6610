"""What runs in VBench's environment: on its own, and in actors that are lost."""

import json
import os

import pytest

from raysandbox.core.progress import Progress
from raysandbox.evaluators._vbench.worker import ShardWork
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.evaluators.vbench.standin import RecordingSession, write_video
from tests.evaluators.vbench.test_vbench_video_evaluator import evaluator, written
from tests.runtime.test_unit_workers import Job

DIMENSIONS = ["temporal_flickering", "subject_consistency", "appearance_style"]


def unit(dimension, *paths):
    videos = [{"path": str(path), "prompt": "a person is dancing", "auxiliary": None} for path in paths]
    return {"dimension": dimension, "videos": videos}


def test_a_model_that_loads_with_its_videos_loads_once_per_unit(stack, tmp_path):
    good = [write_video(tmp_path / f"{n}.mp4", n / 4) for n in range(4)]
    work = ShardWork(str(tmp_path / "weights"))
    state = work.load("cpu")
    results = work.run(unit("human_action", *good), state)
    assert [result["video_results"] for result in results] == [False, False, False, True]
    assert (tmp_path / "weights" / "loads").read_text().split() == ["human_action"]


def test_workers_look_for_model_files_where_the_driver_does(stack, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    ShardWork(str(tmp_path / "files"), {"TORCH_HOME": str(tmp_path / "torch")}).load("cpu")
    found = [os.environ[name] for name in ("VBENCH_CACHE_DIR", "TORCH_HOME", "HF_HUB_OFFLINE")]
    assert found == [str(tmp_path / "files"), str(tmp_path / "torch"), "1"]


def test_the_culprit_among_several_is_found(stack, tmp_path):
    good, bad = (
        write_video(tmp_path / "good.mp4", 1.0),
        write_video(tmp_path / "bad.mp4", 1.0, **{"raise": "no frames"}),
    )
    work = ShardWork(str(tmp_path / "weights"))
    first, second = work.run(unit("human_action", good, bad), work.load("cpu"))
    assert first["video_results"] is True
    assert second == {"video_path": str(bad), "error": "RuntimeError: no frames", "device": "cpu"}


def test_too_few_frames_are_no_score(stack, tmp_path):
    paths = [write_video(tmp_path / f"{n}.mp4", 0.9, frames=n) for n in (1, 2, 3)]
    work = ShardWork(str(tmp_path / "weights"))
    one, two, three = work.run(unit("dynamic_degree", *paths), work.load("cpu"))
    assert one["error"].startswith("it has too few frames")
    assert two["error"] == one["error"]
    assert three["video_results"] is True


def test_what_vbench_does_not_read_is_said(stack, tmp_path):
    moving, still = write_video(tmp_path / "a.gif", 0.9), write_video(tmp_path / "b.mp4", 0.1)
    work = ShardWork(str(tmp_path / "weights"))
    first, second = work.run(unit("dynamic_degree", moving, still), work.load("cpu"))
    assert first["error"].startswith("VBench does not read .gif in dynamic_degree: convert it to .mp4")
    assert second["video_results"] is False


def test_suffixes_may_be_in_capitals(stack, tmp_path):
    paths = [write_video(tmp_path / name, 0.9) for name in ("a.MP4", "a.mp4", "b.Mp4")]
    work = ShardWork(str(tmp_path / "weights"))
    found = work.run(unit("dynamic_degree", *paths), work.load("cpu"))
    assert [(result["video_path"], result["video_results"]) for result in found] == [
        (str(path), True) for path in paths
    ]


def test_nothing_is_fetched(stack, tmp_path, capfd):
    (stack / "vbench" / "dynamic_degree.py").write_text(
        "import subprocess\n"
        "subprocess.run(['wget', 'https://example.org/model.pth'], check=True)\n"
        "subprocess.run(['true'], check=True)\n"
        "def dynamic_degree(video_list): return 0.0, []\n"
        "def compute_dynamic_degree(*_, **__): dynamic_degree([])\n"
    )
    work = ShardWork(str(tmp_path / "weights"))
    assert work.run(unit("dynamic_degree"), work.load("cpu")) == []
    assert "not fetched: ['wget', 'https://example.org/model.pth']" in capfd.readouterr().out


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_changes_nothing(stack, videos, tmp_path):
    local = RecordingSession(tmp_path / "local")
    evaluator(videos, dimension_list=DIMENSIONS).evaluate(local)
    expected = written(videos, "eval_results")
    victim = videos / "a dog-2.mp4"
    write_video(victim, **json.loads(victim.read_text()), kill=str(tmp_path / "killed"))
    job = Job(Resources(num_workers=2), {"env_vars": {"PYTHONPATH": str(stack)}})
    log = tmp_path / "logs" / "job.log"
    remote = RecordingSession(tmp_path / "remote", JobWorkers(job, log, Progress()))
    evaluator(videos, dimension_list=DIMENSIONS, shard_size=3).evaluate(remote)
    assert (tmp_path / "killed").exists()
    assert remote.metrics == local.metrics
    assert written(videos, "eval_results") == expected
