"""The evaluator as a whole: real against degraded clips, in process."""

import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from raysandbox.core.component import PathRole, path_refs
from raysandbox.core.errors import JobFailed, MissingExtraError, UserError
from raysandbox.evaluators import video_inception_evaluator as module
from raysandbox.evaluators._inception.metrics import METRICS, MetricName
from raysandbox.evaluators.video_inception_evaluator import VideoInceptionEvaluator
from raysandbox.provision.weights import files_of
from tests.evaluators.inception.tiny_detectors import carphone, save_detector, save_rows, there_and_back
from tests.evaluators.inception.workers import InProcess, session
from tests.ops.tiny_clips import save_clip, save_picture

SIZE = {"height": 24, "width": 32}
NAMES = {
    **{name: (name,) for name in METRICS if METRICS[name].reduction in ("frechet", "kernel")},
    "isv2048_ucf": ("isv2048_ucf_mean", "isv2048_ucf_std"),
    "is50k": ("is50k_mean", "is50k_std"),
    "prv2048_3n_16f": ("prv2048_3n_16f_precision", "prv2048_3n_16f_recall"),
    "pr50k_3n": ("pr50k_3n_precision", "pr50k_3n_recall"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A detector, a cache, and rows that name the pristine (real) and the distorted (fake) clip."""
    folder = tmp_path_factory.mktemp("inception")
    save_detector(folder / "detector.pt")
    for which, kind in (("real", "pristine"), ("fake", "distorted")):
        clip = there_and_back(carphone(kind), folder / f"{which}.mp4")
        save_rows(folder / f"{which}.jsonl", [clip], [str(carphone(kind))])
    return folder


def evaluator(world: Path, metric: str, **changes) -> VideoInceptionEvaluator:
    config = {
        "metric": metric,
        "fake_data_path": str(world / "fake.jsonl"),
        "real_data_path": str(world / "real.jsonl"),
        "detector_path": str(world / "detector.pt"),
        **SIZE,
    }
    return VideoInceptionEvaluator.model_validate(config | changes)


def small(folder: Path, *lengths: int, name: str = "rows.jsonl", seed: int = 0) -> str:
    """Rows that name clips of some numbers of frames."""
    clips = [save_clip(folder / f"{name}{i}.mp4", seed + i, seconds=n / 8) for i, n in enumerate(lengths)]
    return save_rows(folder / name, clips)


@pytest.mark.parametrize("metric", get_args(MetricName))
def test_real_against_degraded_clips(world, metric):
    found = session(world / "cache")
    scores = evaluator(world, metric).evaluate(found)
    assert tuple(scores) == NAMES[metric]
    assert all(np.isfinite(value) for value in scores.values())
    ((reported, step),) = found.reported
    assert scores.items() <= reported.items()
    assert step is None
    assert reported["fake_files"] == 2
    short = 1 if METRICS[metric].span > 120 else 0
    assert reported["fake_short_videos"] == short
    if metric == "kid50k" or METRICS[metric].reduction == "frechet":
        same = evaluator(world, metric, fake_data_path=str(world / "real.jsonl")).evaluate(session(world / "cache"))
        assert same[metric] < 1e-3
        assert scores[metric] > 10 * abs(same[metric]) + 1e-4
    if METRICS[metric].reduction == "coverage":
        same = evaluator(world, metric, fake_data_path=str(world / "real.jsonl")).evaluate(session(world / "cache"))
        assert list(same.values()) == [1.0, 1.0]
        assert max(scores.values()) < 1.0


def test_features_are_kept_by_content(world, tmp_path):
    rows = small(tmp_path, 20, 30)
    config = {"fake_data_path": rows, "real_data_path": rows}

    def units(metric="fvd2048_16f", use_cache=True, **changes):
        workers = InProcess()
        scores = evaluator(world, metric, **config, **changes).evaluate(session(tmp_path / "c", workers, use_cache))
        return workers.units, scores

    first = units()
    assert first[0] > 1
    assert units() == (0, first[1])
    assert units("kvd2048_16f")[0] == 0  # the same detector on the same clips
    assert units(replace_cache=True) == first
    assert units(use_cache=False) == first
    assert units(width=40)[0] == first[0] - 1  # the survey is known
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number in (0, 1):
        shutil.copy(tmp_path / f"rows.jsonl{number}.mp4", renamed / f"{number}.mp4")
    config["fake_data_path"] = save_rows(renamed / "rows.jsonl", ["0.mp4", "1.mp4"])
    assert units() == (1, first[1])  # the survey of new paths
    save_clip(renamed / "1.mp4", 7, seconds=3.5)
    assert units()[0] == 2


def test_a_run_that_ended_early_goes_on_where_it_was(world, tmp_path):
    class Ending(InProcess):
        def map(self, work, units, **options):
            for index, result in super().map(work, units, **options):
                if self.units > 4:
                    raise JobFailed("the machine was switched off")
                yield index, result

    rows = small(tmp_path, 160)
    same = evaluator(world, "fvd2048_16f", fake_data_path=rows, real_data_path=rows)
    with pytest.raises(JobFailed, match="switched off"):
        same.evaluate(session(tmp_path / "c", Ending()))
    rest = InProcess()
    assert same.evaluate(session(tmp_path / "c", rest))["fvd2048_16f"] < 1e-3
    assert rest.units == 2  # of 5; the survey and three of them were kept


def test_runs_have_seeds_of_their_own_and_a_line_each(world, tmp_path):
    rows, result = small(tmp_path, 40, 60), tmp_path / "out" / "fvd.jsonl"
    config = {"fake_data_path": rows, "real_data_path": small(tmp_path, 50, name="real.jsonl", seed=9)}
    found = session(tmp_path / "c")
    scores = evaluator(world, "fvd2048_16f", **config, num_runs=3, result_path=str(result), seed=7).evaluate(found)
    lines = [json.loads(line) for line in result.read_text().splitlines()]
    values = [line["results"]["fvd2048_16f"] for line in lines]
    assert [(line["run"], line["seed"], line["metric"]) for line in lines] == [
        (run, 7 + run, "fvd2048_16f") for run in range(3)
    ]
    assert len(set(values)) == 3
    assert scores == pytest.approx({"fvd2048_16f": np.mean(values), "fvd2048_16f_runs_std": np.std(values, ddof=1)})
    assert lines[0]["fake"] == {"files": 2, "short_videos": 0, "samples": 2048, "distinct_samples": 70}
    assert (lines[0]["height"], lines[0]["width"], lines[0]["real"]["files"]) == (24, 32, 1)
    assert [step for _, step in found.reported] == [0, 1, 2, None]
    single = evaluator(world, "fvd2048_16f", **config, seed=8).evaluate(session(tmp_path / "c"))
    assert single["fvd2048_16f"] == values[1]


def test_short_videos_are_reported_and_left_out(world, tmp_path, caplog):
    rows, whole = small(tmp_path, 20, 9, 12), small(tmp_path, 20, name="whole.jsonl")
    found = session(tmp_path / "c")
    with caplog.at_level(logging.WARNING):
        scores = evaluator(world, "fvd2048_16f", fake_data_path=rows, real_data_path=whole).evaluate(found)
    assert "2 of 3 fake videos have fewer than the 16 frames of a clip and are left out" in caplog.text
    assert "rows.jsonl1.mp4" in caplog.text
    assert "rows.jsonl2.mp4" in caplog.text
    assert found.reported[0][0]["fake_short_videos"] == 2
    assert scores["fvd2048_16f"] < 1e-3  # what is left is the one video of the other set
    with pytest.raises(
        JobFailed, match="3 of 3 fake videos have fewer than the 128 frames of a clip: there is nothing"
    ):
        evaluator(world, "fvd2048_128f", fake_data_path=rows, real_data_path=whole).evaluate(session(tmp_path / "c"))


@pytest.mark.parametrize("metric", ["fid50k", "fvd2048_16f"])
def test_a_video_with_several_captions_counts_once_per_row(world, tmp_path, metric):
    clips = [save_clip(tmp_path / f"{n}.mp4", n, seconds=2.5 + n) for n in range(2)]
    captioned = [{"videos": [clip], "text": text} for clip in clips for text in ("a cat", "a dog", "a bird")]
    rows = save_rows(tmp_path / "captioned.jsonl", *captioned)
    once = save_rows(tmp_path / "once.jsonl", *({"videos": [clip]} for clip in clips))
    twice = save_rows(tmp_path / "twice.jsonl", {"videos": [clips[0], clips[0], clips[1], clips[1]]})
    for fake in (rows, twice):
        found = session(tmp_path / "c")
        scores = evaluator(world, metric, fake_data_path=fake, real_data_path=once).evaluate(found)
        assert found.reported[0][0]["fake_files"] == (6 if fake == rows else 4)
        assert scores[metric] < 1e-3 or metric != "fid50k"  # all frames as often as each other


def test_images_count_as_frames(world, tmp_path):
    pictures = [save_picture(tmp_path / f"{n}.png", n) for n in range(30)]
    rows = save_rows(tmp_path / "images.jsonl", *({"images": [picture]} for picture in pictures))
    mixed = save_rows(tmp_path / "mixed.jsonl", {"images": pictures, "videos": [save_clip(tmp_path / "v.mp4", 5)]})
    found = session(tmp_path / "c")
    assert evaluator(world, "fid50k", fake_data_path=rows, real_data_path=rows).evaluate(found)["fid50k"] < 1e-9
    assert evaluator(world, "fid50k", fake_data_path=mixed, real_data_path=rows).evaluate(found)["fid50k"] > 1e-6
    assert found.reported[1][0]["fake_samples"] == 46
    assert found.reported[1][0]["real_samples"] == 30
    with pytest.raises(JobFailed, match="none of its 30 rows has a path in column videos"):
        evaluator(world, "fvd2048_16f", fake_data_path=rows).evaluate(found)
    few = save_rows(tmp_path / "few.jsonl", {"images": pictures[:3]})
    for metric, least in (("is50k", 10), ("pr50k_3n", 4)):
        with pytest.raises(JobFailed, match=f"{metric} needs at least {least} frames of fake data, there are 3"):
            evaluator(world, metric, fake_data_path=few, real_data_path=rows).evaluate(found)


def test_numbers_that_are_none_fail_the_job(world, tmp_path):
    rows, detector = small(tmp_path, 20), save_detector(tmp_path / "broken.pt", broken=True)
    with pytest.raises(UserError, match=r"features of .*rows\.jsonl0\.mp4 by .*broken\.pt are not numbers"):
        evaluator(world, "fvd2048_16f", fake_data_path=rows, real_data_path=rows, detector_path=detector).evaluate(
            session(tmp_path / "c")
        )


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_a_detector_is_looked_at_before_the_work(world, tmp_path, content):
    detector = tmp_path / "detector.pt"
    if content is not None:
        detector.write_bytes(content)
    workers = InProcess()
    with pytest.raises(JobFailed, match=r"detector_path: .* is not a TorchScript file"):
        evaluator(world, "fid50k", detector_path=str(detector)).evaluate(session(tmp_path, workers))
    assert workers.units == 0


def test_the_published_detector_is_the_default(world, tmp_path):
    """HOME is empty in a test: it is missing, then it is put where the message says."""
    rows = small(tmp_path, 20)
    unset = evaluator(world, "fvd2048_16f", fake_data_path=rows, real_data_path=rows, detector_path=None)
    said = VideoInceptionEvaluator.missing_weights({"metric": "fvd2048_16f"})["detector_path"]
    assert "i3d_torchscript.pt (missing)" in said
    assert "weights fetch video_inception_evaluator --part fvd" in said
    with pytest.raises(JobFailed, match="detector_path is not set, and model files are not on this machine"):
        unset.evaluate(session(tmp_path / "c"))
    (published,) = files_of("video_inception_evaluator", ["fvd"])
    published.target().parent.mkdir(parents=True)
    shutil.copy(world / "detector.pt", published.target())
    assert VideoInceptionEvaluator.missing_weights({"metric": "fvd2048_16f"}) == {}
    assert VideoInceptionEvaluator.missing_weights({"metric": ["x"]}) == {}
    assert list(unset.evaluate(session(tmp_path / "c"))) == ["fvd2048_16f"]


def test_an_archive_of_another_kind_is_no_detector(world, tmp_path):
    np.savez(tmp_path / "weights.npz", x=np.ones(2))
    with pytest.raises(UserError, match=r"weights\.npz is not a TorchScript file: "):
        evaluator(world, "fid50k", detector_path=str(tmp_path / "weights.npz")).evaluate(session(tmp_path / "c"))


def test_logits_are_taken_as_such(world, tmp_path, caplog):
    import torch

    class Logits(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3)) / 10

    with pytest.warns(DeprecationWarning, match="torch"):
        torch.jit.trace(Logits(), torch.zeros(2, 3, 8, 8)).save(str(tmp_path / "logits.pt"))
    rows = save_rows(tmp_path / "r.jsonl", {"images": [save_picture(tmp_path / f"{n}.png", n) for n in range(12)]})
    config = {"fake_data_path": rows, "real_data_path": None, "detector_path": str(tmp_path / "logits.pt")}
    scores = evaluator(world, "is50k", **config).evaluate(session(tmp_path / "c"))
    assert 1.0 <= scores["is50k_mean"] < 3.0
    assert "they are taken for logits" in caplog.text


def test_configurations_are_checked_before_the_run(world):
    with pytest.raises(ValidationError, match="real_data_path is missing: fid50k compares with real data"):
        evaluator(world, "fid50k", real_data_path=None)
    assert evaluator(world, "is50k", real_data_path=None).real_data_path is None
    for change in ({"metric": "fvd"}, {"height": 0}, {"num_runs": 0}, {"seed": -1}, {"no_such_key": 1}):
        with pytest.raises(ValidationError):
            evaluator(world, **{"metric": "fid50k", **change})
    refs = {ref.key[0]: ref.role for ref in path_refs(VideoInceptionEvaluator, VideoInceptionEvaluator.example)}
    outputs = {key for key, role in refs.items() if role is PathRole.OUTPUT}
    assert outputs == {"result_path"}
    assert {"fake_data_path", "real_data_path", "detector_path"} == refs.keys() - outputs
    whole = evaluator(world, "fid50k")
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_what_is_not_installed_is_named(world, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(MissingExtraError, match=r"needs torch: pip install 'raysandbox\[models\]'"):
        evaluator(world, "fid50k").evaluate(session(tmp_path))


def test_every_metric_has_its_row():
    assert all(len(files_of("video_inception_evaluator", [metric.weights])) == 1 for metric in METRICS.values())
    assert tuple(METRICS) == get_args(MetricName)
    assert {name: METRICS[name].span for name in METRICS if not METRICS[name].of_frames} == {
        "fvd2048_16f": 16,
        "fvd2048_128f": 128,
        "fvd2048_128f_subsample8f": 121,
        "kvd2048_16f": 16,
        "isv2048_ucf": 16,
        "prv2048_3n_16f": 16,
    }
