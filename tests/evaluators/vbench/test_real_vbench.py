"""The true VBench in its own environment, with small random weights: run by hand with `-m vbench`."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.progress import Progress
from raysandbox.evaluators.vbench_video_evaluator import VbenchVideoEvaluator
from raysandbox.provision.environments import interpreter
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.evaluators.vbench.standin import RecordingSession
from tests.runtime.test_unit_workers import Job

pytestmark = pytest.mark.vbench

HERE = Path(__file__).parent
OF_FRAMES = ["subject_consistency", "background_consistency"]
OF_VIDEOS = ["motion_smoothness", "imaging_quality", "aesthetic_quality", "dynamic_degree"]


@pytest.fixture(scope="session")
def python():
    try:
        return interpreter("vbench")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def material(python, tmp_path_factory):
    """Random weights, and five short clips named after prompts."""
    folder = tmp_path_factory.mktemp("vbench")
    start = time.monotonic()
    subprocess.run([python, HERE / "random_weights.py", folder], check=True, stdout=subprocess.DEVNULL)
    print(f"weights and clips: {time.monotonic() - start:.1f} s")
    return folder


@pytest.fixture
def places(material, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(material / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(material / "torch"))


def save_video(path, count):
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for number in range(count):
            shown = np.full((128, 128, 3), 60 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())


class NoWorkers:
    def map(self, work, units, **_):
        assert not units
        return iter(())


def evaluate(python, videos, folder, dimensions, *, workers=1, shard_size=16, cache="cache", **changes):
    """Evaluates on actors in VBench's environment; returns the mean score and VBench's result JSON."""
    job = Job(Resources(num_workers=max(workers, 1)))
    actors = JobWorkers(job, folder / "logs" / "job.log", Progress())
    session = RecordingSession(folder / cache, actors if workers else NoWorkers())
    settings = {"mode": "custom_input", "dimension_list": dimensions, "env": python, **changes}
    own = VbenchVideoEvaluator(
        videos_path=str(videos), output_path=str(folder / "out"), shard_size=shard_size, **settings
    )
    start = time.monotonic()
    mean = own.evaluate(session)
    print(f"{workers} workers, {shard_size} videos per shard: {time.monotonic() - start:.1f} s, {session.metrics}")
    return mean, json.loads((folder / "out" / "vbench_eval_results.json").read_text())


def directly(python, material, videos, folder, dimensions, mode="custom_input", info=Path("none")):
    script = [python, HERE / "vbench_directly.py", material / "weights", videos, mode, info, folder, *dimensions]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "direct_eval_results.json").read_text())


def assert_equal(ours, theirs):
    """The same numbers: of videos to the last bit, of dimensions up to the order of summing."""
    assert set(ours) == set(theirs)
    for dimension, (score, results) in theirs.items():
        assert ours[dimension][0] == pytest.approx(score, rel=1e-14)
        found = {result["video_path"]: result for result in ours[dimension][1]}
        assert len(found) == len(results)
        for result in results:
            assert found[result["video_path"]].items() >= result.items()


@pytest.mark.usefixtures("cluster", "places")
def test_flickering_of_real_clips_is_vbenchs(python, material, tmp_path):
    data = os.environ.get("RAYSANDBOX_BENCH_DATA")
    if not data:
        pytest.skip("RAYSANDBOX_BENCH_DATA is not set")
    videos = Path(data) / "videos"
    mean, ours = evaluate(python, videos, tmp_path, ["temporal_flickering"], workers=2, shard_size=1)
    theirs = directly(python, material, videos, tmp_path, ["temporal_flickering"])
    print(f"ours {mean!r}, VBench {theirs['temporal_flickering'][0]!r}")
    assert_equal(ours, theirs)
    assert mean == ours["temporal_flickering"][0]


@pytest.mark.usefixtures("cluster", "places")
def test_true_code_paths_in_any_number_of_shards(python, material, tmp_path):
    dimensions = OF_FRAMES + OF_VIDEOS
    videos = material / "videos"
    one = evaluate(python, videos, tmp_path, dimensions, cache="1")
    assert_equal(one[1], directly(python, material, videos, tmp_path, dimensions))
    assert evaluate(python, videos, tmp_path, dimensions, workers=2, shard_size=3, cache="2") == one
    assert evaluate(python, videos, tmp_path, dimensions, workers=3, shard_size=1, cache="5") == one
    assert evaluate(python, videos, tmp_path, dimensions, workers=0, cache="5") == one  # no worker starts


@pytest.mark.usefixtures("cluster", "places")
def test_a_killed_worker_changes_nothing(python, material, tmp_path):
    kill = material / "weights" / "dino_model" / "facebookresearch_dino_main" / "kill"
    expected = evaluate(python, material / "videos", tmp_path, OF_FRAMES, cache="whole")
    kill.touch()
    assert evaluate(python, material / "videos", tmp_path, OF_FRAMES, workers=2, shard_size=2) == expected
    assert not kill.exists()


@pytest.mark.usefixtures("cluster", "places")
def test_the_suites_own_mode(python, material, tmp_path):
    info = tmp_path / "info.json"
    style = {"appearance_style": {"appearance_style": "oil painting"}}
    entries = [
        {"prompt_en": "a cat", "dimension": ["temporal_flickering"]},
        {"prompt_en": "a lake, oil painting", "dimension": ["appearance_style"], "auxiliary_info": style},
    ]
    info.write_text(json.dumps(entries))
    dimensions = ["temporal_flickering", "appearance_style"]
    videos, changes = material / "videos", {"mode": "vbench_standard", "full_json_dir": str(info)}
    _, ours = evaluate(python, videos, tmp_path, dimensions, **changes)
    assert_equal(ours, directly(python, material, videos, tmp_path, dimensions, "vbench_standard", info))


@pytest.mark.usefixtures("cluster", "places")
def test_what_vbench_cannot_score_is_named(python, material, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    with pytest.raises(JobFailed, match=r"temporal_flickering: .*text\.mp4: .* it cannot be decoded"):
        evaluate(python, tmp_path / "videos", tmp_path, ["temporal_flickering"])
    with pytest.raises(JobFailed, match=r"scene: the environment of .* lacks fairscale"):
        evaluate(python, material / "videos", tmp_path, ["scene"], mode="vbench_standard")


@pytest.mark.usefixtures("cluster", "places")
def test_too_few_frames_and_gifs_are_named(python, tmp_path):
    from PIL import Image

    videos = tmp_path / "videos"
    videos.mkdir()
    for count in (1, 2, 3):
        save_video(videos / f"{count}.mp4", count)
    save_video(videos / "capitals.MP4", 3)
    Image.new("RGB", (128, 128)).save(videos / "moving.gif", save_all=True, append_images=[Image.new("L", (128, 128))])
    with pytest.raises(JobFailed) as caught:
        evaluate(python, videos, tmp_path, ["dynamic_degree"])
    lines = sorted(line.split(": ", 2)[1:] for line in str(caught.value).splitlines()[1:])
    few = "it has too few frames: VBench looks at eight per second, and needs three of them"
    assert lines[:2] == [[str(videos / "1.mp4"), few], [str(videos / "2.mp4"), few]]
    assert lines[2][1].startswith("VBench does not read .gif in dynamic_degree")
    assert len(lines) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "places")
def test_viclip_runs(python, material, tmp_path):
    """430 million parameters on a processor: a minute per video."""
    mean, _ = evaluate(python, material / "videos" / "a cat-0.mp4", tmp_path, ["overall_consistency"])
    assert -1 < mean < 1
