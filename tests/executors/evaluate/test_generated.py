"""Models judged by what they generate: one configuration, checked and planned as its two parts are."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from raysandbox.core.component import FetchedLater, PathRole, path_refs
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.evaluators._vbench.environment import Environment
from raysandbox.evaluators.vbench_video_evaluator import VbenchVideoEvaluator
from raysandbox.evaluators.video_inception_evaluator import VideoInceptionEvaluator
from raysandbox.executors.base import MODEL_EVALUATORS
from raysandbox.executors.evaluate.inception import Inception
from raysandbox.executors.evaluate.vbench import Vbench
from raysandbox.executors.infer.diffusers import DiffusersInference
from raysandbox.hooks.evaluate_model import EvaluateModelHook
from raysandbox.recipe.scoring import DatasetScorers

PROMPTS = [
    {"prompt_en": "a cat", "dimension": ["temporal_flickering", "scene"], "auxiliary_info": {"scene": {"a": 1}}},
    {"prompt_en": "a dog", "dimension": ["motion_smoothness"]},
    {"prompt_en": "a cow", "dimension": "temporal_flickering"},
]


@pytest.fixture
def work(workspace: Path) -> SimpleNamespace:
    return SimpleNamespace(artifacts=workspace / "artifacts")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parts do nothing but note what they are asked for."""
    noted: list[Any] = []

    def infer(self: DiffusersInference, session: SimpleNamespace) -> str:
        noted.append(self)
        return self.output_dir or "videos"

    def evaluate(self: Any, session: SimpleNamespace) -> Any:
        noted.append(self)
        return 0.5

    monkeypatch.setattr(DiffusersInference, "infer", infer)
    monkeypatch.setattr(VbenchVideoEvaluator, "evaluate", evaluate)
    monkeypatch.setattr(VideoInceptionEvaluator, "evaluate", evaluate)
    return noted


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> Environment:
    """An environment of VBench that holds its prompts and what all dimensions need but two."""
    (workspace / "VBench_full_info.json").write_text(json.dumps(PROMPTS))
    found = Environment("python", workspace, {}, frozenset())
    module = "raysandbox.evaluators.vbench_video_evaluator"
    monkeypatch.setattr(f"{module}.interpreter", lambda name: "python")
    monkeypatch.setattr(f"{module}.inspect_environment", lambda python: found)
    return found


def vbench(**evaluation: Any) -> Vbench:
    generation = {"model": "some/model", **evaluation.pop("generation", {})}
    return Vbench.model_validate({"generation": generation, "evaluation": evaluation})


@pytest.mark.parametrize("name", ["vbench", "inception"])
def test_examples_travel(name: str) -> None:
    cls = MODEL_EVALUATORS.get(name)
    example = yaml.safe_load(yaml.safe_dump(dict(cls.example)))
    made = EvaluateModelHook.component({"type": name, **example})
    assert pickle.loads(pickle.dumps(made)) == made == cls(**made.model_dump())


def test_paths_of_both_parts_are_planned() -> None:
    refs = {ref.key: ref.role for ref in path_refs(Inception, Inception.example)}
    assert refs == {
        ("generation", "prompts"): PathRole.INPUT,
        ("generation", "model"): PathRole.MODEL,
        ("generation", "lora_path"): PathRole.INPUT,
        ("evaluation", "real_data_path"): PathRole.INPUT,
        ("evaluation", "detector_path"): PathRole.INPUT,
    }
    raw = {"generation": {"model": "m", "output_dir": "v"}, "evaluation": {"output_path": "o", "full_json_dir": "j"}}
    roles = {ref.path: ref.role for ref in path_refs(Vbench, raw)}
    assert roles == {"v": PathRole.OUTPUT, "m": PathRole.MODEL, "o": PathRole.OUTPUT, "j": PathRole.INPUT}


def test_what_is_missing_is_said_by_part() -> None:
    found = Vbench.missing_weights({"generation": {"model": "some/model"}, "evaluation": {}})
    assert set(found) == {"generation", "evaluation"}
    assert isinstance(found["generation"], FetchedLater)  # the hub gives it: no reason to refuse a run
    assert found["generation"].startswith("model: ")
    assert "env: " in found["evaluation"]
    assert not isinstance(found["evaluation"], FetchedLater)
    assert Vbench.missing_weights({}) == {}


def test_only_prompts_of_the_dimensions_are_generated(work, calls, environment) -> None:
    assert vbench(dimension_list=["temporal_flickering"], eval_name="x").evaluate(work) == 0.5
    generation, evaluation = calls
    prompts = json.loads(Path(generation.prompts).read_text())
    assert [entry["prompt_en"] for entry in prompts] == ["a cat", "a cow"]
    assert (evaluation.videos_path, evaluation.eval_name) == ("videos", "x")
    assert evaluation.output_path == str(work.artifacts / "vbench")


def test_prompts_and_places_that_are_given_count(work, calls, environment, workspace) -> None:
    (workspace / "few.json").write_text(json.dumps(PROMPTS[:1]))
    (workspace / "own.txt").write_text("a cat\nno prompt of the suite\n")
    scored = {"dimension_list": ["temporal_flickering"], "full_json_dir": "few.json", "output_path": "out"}
    vbench(**scored, generation={"prompts": "own.txt", "output_dir": "mine"}).evaluate(work)
    generation, evaluation = calls
    assert (generation.prompts, evaluation.videos_path, evaluation.output_path) == ("own.txt", "mine", "out")
    vbench(**scored).evaluate(work)
    assert len(json.loads(Path(calls[2].prompts).read_text())) == 1


def test_nothing_is_generated_that_cannot_be_scored(work, calls, environment) -> None:
    with pytest.raises(JobFailed, match=r"human_action: .* lacks numpy"):
        vbench(dimension_list=["human_action"]).evaluate(work)
    with pytest.raises(UserError, match=r"full_json_dir: nowhere\.json cannot be read"):
        vbench(full_json_dir="nowhere.json", dimension_list=["temporal_flickering"]).evaluate(work)
    detector = {"metric": "isv2048_ucf", "detector_path": "absent.pt"}
    with pytest.raises(JobFailed, match=r"absent\.pt is not a TorchScript file"):
        Inception.model_validate({"generation": {"model": "m", "prompts": "p"}, "evaluation": detector}).evaluate(work)
    assert calls == []


@pytest.mark.parametrize(
    ("dimensions", "generation", "lacking"),
    [
        (["temporal_flickering"], {"prompts": "own.txt"}, "temporal_flickering"),
        (["scene", "motion_smoothness"], {"prompts": "some.txt"}, "motion_smoothness"),
        (["scene", "motion_smoothness"], {"prompt_limit": 1}, "motion_smoothness"),
    ],
)
def test_prompts_that_no_dimension_scores_are_not_generated(
    work, calls, environment, workspace, monkeypatch, dimensions, generation, lacking
) -> None:
    monkeypatch.setattr(Environment, "require", lambda self, names: None)
    (workspace / "own.txt").write_text("a lion\n")
    (workspace / "some.txt").write_text("a cat\na lion\n")
    with pytest.raises(JobFailed, match=rf"generation\.prompts: .* holds no prompt of {lacking} in .*remove {lacking}"):
        vbench(dimension_list=dimensions, generation=generation).evaluate(work)
    assert calls == []
    custom = {"dimension_list": ["temporal_flickering"], "mode": "custom_input"}
    vbench(**custom, generation={"prompts": "own.txt"}).evaluate(work)
    assert len(calls) == 2


def test_real_videos_are_looked_at_before_others_are_generated(work, calls, monkeypatch, workspace) -> None:
    monkeypatch.setattr(VideoInceptionEvaluator, "require", lambda self: None)
    (workspace / "real.jsonl").write_text(json.dumps({"videos": ["gone.mp4"]}) + "\n")
    work.scorers, work.cache_dir, work.use_cache = DatasetScorers(engine="local"), workspace / "cache", True
    evaluation = {"metric": "fvd2048_16f", "real_data_path": "real.jsonl"}
    with pytest.raises(JobFailed, match=r"real_data_path: 1 of the 1 files .*gone\.mp4"):
        Inception.model_validate({"generation": {"model": "m", "prompts": "p"}, "evaluation": evaluation}).evaluate(
            work
        )
    assert calls == []


def test_the_inception_metric_reads_the_list_of_what_was_made(work, calls, monkeypatch) -> None:
    monkeypatch.setattr(VideoInceptionEvaluator, "require", lambda self: None)
    Inception.model_validate(
        {"generation": {"model": "m", "prompts": "p"}, "evaluation": {"metric": "isv2048_ucf"}}
    ).evaluate(work)
    assert calls[1].fake_data_path == str(work.artifacts / "videos.jsonl")


@pytest.mark.parametrize(
    ("cls", "generation", "evaluation", "message"),
    [
        (Vbench, {}, {"videos_path": "v"}, "`generation` makes the videos"),
        (Vbench, {}, {"dimension_list": ["flicker"]}, "unknown dimension 'flicker'"),
        (Vbench, {"modle": "m"}, {}, "modle"),
        (Vbench, {"num_frames": 0}, {}, "generation.num_frames"),
        (Inception, {}, {"metric": "isv2048_ucf"}, r"generation\.prompts is missing"),
        (Inception, {"prompts": "p"}, {"metric": "isv2048_ucf", "fake_data_path": "f"}, "`generation` makes"),
        (Inception, {"prompts": "p"}, {"metric": "fvd2048_16f"}, "real_data_path is missing"),
        (Inception, {"prompts": "p", "num_frames": 15}, {"metric": "isv2048_ucf"}, "clips of 16 frames"),
        (
            Inception,
            {"prompts": "p", "num_frames": 120},
            {"metric": "fvd2048_128f_subsample8f", "real_data_path": "r"},
            r"generation\.num_frames is 120: .* clips of 121 frames",
        ),
    ],
)
def test_bad_configurations_are_refused_by_key(cls, generation, evaluation, message) -> None:
    with pytest.raises(ValidationError, match=message):
        cls.model_validate({"generation": {"model": "m", **generation}, "evaluation": evaluation})
