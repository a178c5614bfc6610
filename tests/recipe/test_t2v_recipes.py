"""The shipped recipes for text-to-video data, on clips made on the spot and tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from raysandbox.recipe.api import process
from raysandbox.recipe.problems import recipe_problems
from tests.ops import tiny_clips, tiny_models

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"
STATISTICS = {
    "t2v_optimal": ["video_nsfw_score", "video_frames_text_similarity"],
    "t2v_evolution": [
        "video_nsfw_score",
        "video_frames_text_similarity",
        "video_motion_score",
        "video_frames_aesthetics_score",
        "video_duration",
    ],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "hf_nsfw_model": tiny_models.image_classifier(folder / "classifier"),
        "hf_clip": tiny_models.clip(folder / "clip"),
        "hf_scorer_model": tiny_models.aesthetics_predictor(folder / "aesthetics-predictor"),
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    captions = ["a red wave", "the sea at night", "sand", "a cat on a sofa", "birds", "a city from above"]
    lines = []
    for number, caption in enumerate(captions):
        tiny_clips.save_clip(folder / f"{number}.mp4", number, seconds=1.5 + number / 2, step=number)
        text = f"<__dj__video> {caption} <|__dj__eoc|>"
        lines.append(json.dumps({"id": number, "text": text, "videos": [f"{number}.mp4"]}))
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return folder / "clips.jsonl"


def load(name, source, target, models, **bounds):
    """A shipped recipe on this data, with tiny models, and other bounds where they are given."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    for step in recipe["process"]:
        ((operator, parameters),) = step.items()
        parameters |= {key: value for key, value in models.items() if key in parameters}
        parameters |= bounds.get(operator, {})
        if "hf_" in "".join(parameters):
            parameters |= {"memory": "100MB"}
    return {**recipe, "dataset_path": str(source), "export_path": str(target), "max_bad_rows": 0}


def run(recipe, **how):
    result = process(recipe, cache=False, **how)
    return result, [json.loads(line) for line in Path(recipe["export_path"]).read_text().splitlines()]


WIDE = {
    "video_nsfw_filter": {"max_score": 1},
    "video_frames_text_similarity_filter": {"min_score": -1},
    "video_motion_score_filter": {"min_score": 0, "max_score": 1000},
    "video_aesthetics_filter": {"min_score": -10, "max_score": 10},
    "video_duration_filter": {"min_duration": 2.4},
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_recipe_as_shipped_has_no_errors(name):
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    problems = recipe_problems(recipe)
    assert [problem for problem in problems if problem.severity == "error"] == []
    assert all("is not on this machine" in problem.message for problem in problems)
    bounds = {
        f"{operator}.{key}": value
        for step in recipe["process"]
        for operator, parameters in step.items()
        for key, value in parameters.items()
        if key.startswith(("min_", "max_"))
    }
    assert bounds["video_nsfw_filter.max_score"] == 0.000195383
    assert bounds["video_frames_text_similarity_filter.min_score"] == 0.306337


@pytest.mark.parametrize("name", STATISTICS)
def test_a_recipe_as_shipped_runs(name, clips, models, tmp_path):
    result, rows = run(load(name, clips, tmp_path / "out.jsonl", models), engine="local")
    assert result.rows_in == 6
    assert result.quarantined == 0
    assert rows == []  # to an untrained model no clip is that decent
    assert "video_nsfw_filter dropped all of its 6 rows" in result.warnings


@pytest.mark.parametrize("name", STATISTICS)
def test_all_statistics_are_kept(name, clips, models, tmp_path):
    result, rows = run(load(name, clips, tmp_path / "out.jsonl", models, **WIDE), engine="local")
    kept = [2, 3, 4, 5] if name == "t2v_evolution" else [0, 1, 2, 3, 4, 5]
    assert [row["id"] for row in rows] == kept
    assert all(list(row["__dj__stats__"]) == STATISTICS[name] for row in rows)
    assert all(len(value) == 1 for row in rows for value in row["__dj__stats__"].values())
    assert [op.rows_in for op in result.ops] == [6] * len(result.ops)


def test_a_recipe_may_have_its_own_marks(clips, models, tmp_path):
    _, rows = run(load("t2v_optimal", clips, tmp_path / "out.jsonl", models, **WIDE), engine="local")
    marked = clips.parent / "marked.jsonl"
    marked.write_text(clips.read_text().replace("<__dj__video>", "[V]").replace("<|__dj__eoc|>", "[END]"))
    recipe = load("t2v_optimal", marked, tmp_path / "marked.jsonl", models, **WIDE)
    assert run(recipe)[1][0]["__dj__stats__"]["video_frames_text_similarity"] == []
    _, others = run({**recipe, "video_special_token": "[V]", "eoc_special_token": "[END]"})
    assert [row["__dj__stats__"] for row in others] == [row["__dj__stats__"] for row in rows]


def test_each_video_is_decoded_once(clips, models, tmp_path, monkeypatch):
    from raysandbox.ops.media.decoder import Decoder

    decoded = []
    answers = Decoder.answers

    def noting(self, jobs, *arguments):
        decoded.extend(job.path for job in jobs if job.name == "video_frames")
        return answers(self, jobs, *arguments)

    monkeypatch.setattr(Decoder, "answers", noting)
    run(load("t2v_evolution", clips, tmp_path / "out.jsonl", models, **WIDE), engine="local")
    assert sorted(decoded) == [str(clips.parent / f"{number}.mp4") for number in range(6)]


@pytest.mark.usefixtures("cluster")
def test_the_same_rows_on_ray(clips, models, tmp_path):
    _, rows = run(load("t2v_evolution", clips, tmp_path / "local.jsonl", models, **WIDE), engine="local")
    recipe = load("t2v_evolution", clips, tmp_path / "ray.jsonl", models, **WIDE)
    result, ray_rows = run(recipe, engine="ray", block_bytes=200)
    assert result.engine == "ray"
    assert [row["id"] for row in ray_rows] == [row["id"] for row in rows]
    for row, ray_row in zip(rows, ray_rows, strict=True):
        for key, values in row["__dj__stats__"].items():
            np.testing.assert_allclose(ray_row["__dj__stats__"][key], values, atol=1e-5)
