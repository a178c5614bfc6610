"""The evaluator on a stand-in for VBench: scores, files, cache, failures by name."""

import json
import logging
import math
import platform
import sys

import pytest
from pydantic import ValidationError

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.evaluators import vbench_video_evaluator as module
from raysandbox.evaluators._vbench import dimensions
from raysandbox.evaluators.base import DATA_EVALUATORS
from raysandbox.evaluators.vbench_video_evaluator import VbenchVideoEvaluator
from raysandbox.provision.environments import MANIFEST, driver_ray, package_folder, pins_of
from tests.evaluators.vbench.standin import RecordingSession, write_video

DIMENSIONS = ["temporal_flickering", "subject_consistency", "overall_consistency", "color", "appearance_style"]


def evaluator(videos, **changes):
    settings = {
        "videos_path": str(videos),
        "output_path": str(videos.parent / "out"),
        "env": sys.executable,
        "dimension_list": DIMENSIONS,
        **changes,
    }
    return VbenchVideoEvaluator(**settings)


def written(videos, name):
    return json.loads((videos.parent / "out" / f"vbench_{name}.json").read_text())


@pytest.fixture
def suite(stack, videos):
    return videos


def test_scores_and_files(suite, session, caplog):
    with caplog.at_level(logging.WARNING):
        mean = evaluator(suite).evaluate(session)
    assert not caplog.records
    merged, own, sums = (written(suite, name) for name in ("merged_results", "eval_results", "scores"))
    contents = [json.loads(path.read_text()) for path in sorted(suite.glob("a cat*")) + sorted(suite.glob("a dog*"))]
    values = [content["value"] for content in contents]
    weights = [content["frames"] - 1 for content in contents]
    expected = merged["detail"]
    assert expected["temporal_flickering"] == pytest.approx(sum(values) / 10)
    assert expected["subject_consistency"] == pytest.approx(
        sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
    )
    assert expected["overall_consistency"] == pytest.approx(sum(values) / 10 + len("a cat"))
    assert merged["mean_score"] == mean == pytest.approx(sum(expected.values()) / 5)
    assert list(own) == DIMENSIONS
    assert own["temporal_flickering"] == [
        expected["temporal_flickering"],
        [
            {"video_path": str(suite / f"{prompt}-{n}.mp4"), "video_results": values[5 * row + n]}
            for row, prompt in enumerate(("a cat", "a dog"))
            for n in range(5)
        ],
    ]
    assert all(result["video_results"] >= 0.5 for result in own["color"][1])
    assert len(own["color"][1]) == 4  # where the object was not found a video does not count
    assert sums["total"] is sums["quality"] is sums["semantic"] is None
    assert len(sums["missing"]) == 11
    assert sums["videos"]["color"] == {"scored": 5, "wanted": 5}
    assert session.metrics == {"mean_score": mean, **expected}
    assert (suite.parent / "out" / "vbench_radar.png").read_bytes().startswith(b"\x89PNG")


def test_any_sharding_gives_the_same_bits(suite, tmp_path):
    found = {}
    for size in (1, 2, 3, 50):
        session = RecordingSession(tmp_path / f"cache-{size}")
        evaluator(suite, shard_size=size).evaluate(session)
        found[size] = (session.metrics, written(suite, "eval_results"))
    assert found[1] == found[2] == found[3] == found[50]


def test_a_worker_loads_a_model_once_per_dimension(suite, session, tmp_path):
    evaluator(suite, shard_size=2).evaluate(session)
    loads = (tmp_path / "weights" / "loads").read_text().split()
    assert sorted(loads) == sorted(DIMENSIONS)
    assert {size for _, size in session.workers.calls} == {1, 2}


def test_known_videos_are_not_scored_again(suite, session):
    first = evaluator(suite).evaluate(session)
    session.workers.calls.clear()
    assert evaluator(suite).evaluate(session) == first
    assert not session.workers.calls
    write_video(suite / "a cat-3.mp4", 0.99)
    assert evaluator(suite).evaluate(session) != first
    assert sorted(session.workers.calls) == [(name, 1) for name in sorted(DIMENSIONS[:3])]
    session.workers.calls.clear()
    session.use_cache = False
    evaluator(suite).evaluate(session)
    assert sum(size for _, size in session.workers.calls) == 40


def test_results_follow_the_model_files_and_not_what_python_leaves_beside(suite, session, tmp_path):
    hub = tmp_path / "weights" / "dino_model" / "facebookresearch_dino_main"
    (hub / "__pycache__").mkdir(parents=True)
    (hub / "hubconf.py").write_text("one")

    def scored():
        session.workers.calls.clear()
        evaluator(suite, dimension_list=["subject_consistency"]).evaluate(session)
        return sum(size for _, size in session.workers.calls)

    assert scored() == 10
    (hub / "__pycache__" / "hubconf.pyc").touch()
    assert scored() == 0
    (hub / "hubconf.py").write_text("other")
    assert scored() == 10


def test_equal_videos_are_scored_once(suite, session):
    (suite / "a cat-1.mp4").write_bytes((suite / "a cat-0.mp4").read_bytes())
    evaluator(suite, dimension_list=["temporal_flickering"]).evaluate(session)
    assert session.workers.calls == [("temporal_flickering", 9)]
    assert len(written(suite, "eval_results")["temporal_flickering"][1]) == 10


def test_failures_name_dimension_and_video_and_the_rest_is_kept(suite, session):
    write_video(suite / "a cat-0.mp4", math.nan)
    write_video(suite / "a cat-1.mp4", 0.5, frames=0)
    write_video(suite / "a cat-2.mp4", 0.5, frames=1)
    write_video(suite / "a dog-4.mp4", 0.5, **{"raise": "moov atom not found"})
    with pytest.raises(JobFailed) as caught:
        evaluator(suite, dimension_list=DIMENSIONS[:2]).evaluate(session)
    assert str(caught.value).startswith("VBench cannot score 6 videos; make or remove them, the rest is kept:\n")
    lines = str(caught.value).splitlines()[1:]
    folder = f"{suite}/"
    assert f"  subject_consistency: {folder}a cat-2.mp4: it has too few frames" in lines
    assert f"  temporal_flickering: {folder}a cat-1.mp4: it cannot be decoded" in lines
    assert f"  subject_consistency: {folder}a dog-4.mp4: RuntimeError: moov atom not found" in lines
    assert f"  subject_consistency: {folder}a cat-0.mp4: its score is nan, not a number (too few frames?)" in lines
    assert lines[-1] == "  … and 1 more"
    assert not (suite.parent / "out").exists()
    for name in ("a cat-0.mp4", "a cat-1.mp4", "a cat-2.mp4", "a dog-4.mp4"):
        (suite / name).unlink()
    session.workers.calls.clear()
    evaluator(suite, dimension_list=DIMENSIONS[:2]).evaluate(session)
    assert not session.workers.calls


def test_videos_of_ones_own(suite, session):
    evaluator(suite, mode="custom_input", dimension_list=["temporal_flickering"]).evaluate(session)
    assert written(suite, "scores")["videos"]["temporal_flickering"] == {"scored": 25, "wanted": None}


def test_an_environment_that_lacks_what_a_dimension_needs(suite, session):
    with pytest.raises(
        JobFailed, match=r"scene: the environment of .* lacks fairscale: raysandbox env create vbench --with-"
    ):
        evaluator(suite, dimension_list=["scene"]).evaluate(session)
    with pytest.raises(JobFailed, match=r"human_action: the environment of .* lacks numpy < 2"):
        evaluator(suite, dimension_list=["human_action"]).evaluate(session)
    with pytest.raises(UserError, match=r"motion_smoothness: its model does not load from (?s:.*)weights fetch"):
        evaluator(suite, dimension_list=["motion_smoothness"], mode="custom_input").evaluate(session)


def test_by_default_what_the_environment_can_compute(suite, session, caplog, monkeypatch):
    monkeypatch.setattr(module, "_all_of", lambda mode: ["temporal_flickering", "human_action", "scene"])
    with caplog.at_level(logging.WARNING):
        evaluator(suite, dimension_list=[]).evaluate(session)
    (warning,) = caplog.records
    assert "lacks fairscale, numpy < 2: not scored are human_action, scene; raysandbox env" in warning.getMessage()
    assert list(written(suite, "merged_results")["detail"]) == ["temporal_flickering"]
    assert {"human_action", "scene"} <= set(written(suite, "scores")["missing"])


def test_an_interpreter_without_vbench(videos, session, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(UserError, match="has no vbench: raysandbox env create vbench"):
        evaluator(videos).evaluate(session)
    with pytest.raises(UserError, match=r"does not run as a Python interpreter|fails"):
        evaluator(videos, env="/bin/echo").evaluate(session)
    with pytest.raises(UserError, match="raysandbox env create vbench"):
        evaluator(videos, env=None).evaluate(session)


def test_keys_of_the_original(suite, session, caplog):
    settings = {"env_name": sys.executable, "env_manager": "conda", "env_params": {"python": 3.8}, "num_gpus": 4}
    with caplog.at_level(logging.WARNING):
        evaluator(
            suite, env=None, **settings, load_ckpt_from_local=False, dimension_list=["temporal_flickering"]
        ).evaluate(session)
    (warning,) = caplog.records
    assert "env_manager, env_params have no meaning here" in warning.getMessage()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dimension_list": ["temporal_flicker"]},
            "unknown dimension 'temporal_flicker'; did you mean 'temporal_flickering'?",
        ),
        ({"dimension_list": ["color", "color"]}, "named twice"),
        (
            {"mode": "custom_input", "dimension_list": ["color", "scene"]},
            "color, scene can be scored on the suite's own",
        ),
        ({"mode": "custom"}, "vbench_standard"),
        ({"eval_name": "../x"}, "should match pattern"),
        ({"shard_size": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_configurations(videos, changes, message):
    with pytest.raises(ValidationError, match=message.replace("?", r"\?")):
        evaluator(videos, **changes)


def test_what_is_missing_before_a_run():
    cls = DATA_EVALUATORS.get("vbench_video_evaluator")
    found = cls.missing_weights({"dimension_list": ["temporal_flickering", "motion_smoothness"]})
    assert set(found) == {"env", "dimension_list"}
    assert "raysandbox env create vbench" in found["env"]
    assert "amt-s.pth" in found["dimension_list"]
    assert cls.missing_weights({"dimension_list": ["temporal_flickering"], "env": sys.executable}) == {}
    assert cls.missing_weights({"dimension_list": [["color"], 3], "env": sys.executable}) == {}
    everything = cls.missing_weights({"mode": "custom_input", "env": sys.executable})["dimension_list"]
    assert "raft-things.pth" in everything
    assert "grit" not in everything


def built(root, variant):
    """An environment that `raysandbox env create` seems to have built."""
    (root / "vbench" / "bin").mkdir(parents=True, exist_ok=True)
    (root / "vbench" / "bin" / "python").touch()
    (root / "vbench" / "package").mkdir(exist_ok=True)
    link = root / "vbench" / "package" / "raysandbox"
    if not link.exists():
        link.symlink_to(package_folder())
    manifest = {"variant": variant, "python": platform.python_version(), "ray": driver_ray()}
    manifest["pins"] = pins_of("vbench", variant).digest
    (root / "vbench" / MANIFEST).write_text(json.dumps(manifest))


def test_what_the_environment_cannot_compute_is_said_before_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(tmp_path))
    monkeypatch.setattr(module, "missing", lambda component, parts: [])
    named = {"dimension_list": ["temporal_flickering", "human_action", "scene"]}
    advice = "raysandbox env create vbench --with-detectron2, or name other dimensions in dimension_list"
    said = f"human_action, scene: the environment 'vbench' lacks fairscale, numpy < 2: {advice}"
    assert VbenchVideoEvaluator.missing_weights(named)["dimension_list"] == said  # it is not built at all
    built(tmp_path, "")
    assert VbenchVideoEvaluator.missing_weights(named) == {"dimension_list": said}
    assert VbenchVideoEvaluator.missing_weights({"dimension_list": ["temporal_flickering"]}) == {}
    built(tmp_path, "detectron2")
    assert VbenchVideoEvaluator.missing_weights(named) == {}


@pytest.mark.parametrize("mode", ["vbench_standard", "custom_input"])
def test_the_default_needs_the_model_files_of_what_the_environment_can_compute(tmp_path, monkeypatch, mode):
    asked = []
    monkeypatch.setenv("RAYSANDBOX_ENVIRONMENTS", str(tmp_path))
    monkeypatch.setattr(module, "missing", lambda component, parts: asked.append(list(parts)) or [])
    for variant in ("", "detectron2"):
        built(tmp_path, variant)
        assert VbenchVideoEvaluator.missing_weights({"mode": mode}) == {}
    of_mode = [one for one in dimensions.DIMENSIONS.values() if mode == "vbench_standard" or not one.needs_suite]
    assert asked == [[one.name for one in of_mode if not one.modules], [one.name for one in of_mode]]


def test_an_interpreter_is_asked_what_it_can_compute(stack, monkeypatch):
    monkeypatch.setattr(module, "missing", lambda component, parts: [])
    named = {"env": sys.executable, "dimension_list": ["color", "scene"]}  # the stand-in has a detectron2
    said = VbenchVideoEvaluator.missing_weights(named)["dimension_list"]
    assert said.startswith(f"scene: the environment '{sys.executable}' lacks fairscale: ")
