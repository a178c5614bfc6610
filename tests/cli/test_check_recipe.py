"""`check` on a recipe that stands alone, and on models that recipes name."""

import os
from pathlib import Path

import pytest

from raysandbox.api import check
from raysandbox.core.errors import Problem

STEP = "  - image_nsfw_filter: {{hf_nsfw_model: {model}}}\n"


def write(path: str, *lines: str) -> str:
    Path(path).write_text("\n".join(lines) + "\n")
    return path


def found(problems: list[Problem]) -> list[tuple[str, int | None, str]]:
    return [(problem.severity, problem.line, problem.message.split(":")[0]) for problem in problems]


@pytest.fixture(autouse=True)
def _here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(workspace / "hub"))


def test_a_sound_recipe_has_no_problems() -> None:
    Path("in.jsonl").touch()
    os.mkdir("model")
    recipe = write("r.yaml", "dataset_path: in.jsonl", "process:", STEP.format(model="./model"))
    assert check(recipe) == []


def test_missing_data_and_models_are_warnings_and_the_rest_is_not() -> None:
    steps = (STEP.format(model=model) for model in ("./none", "someone/model"))
    recipe = write("r.yaml", "dataset_path: none.jsonl", "nonsense: 1", "process:", *steps, "  - imag_nsfw_filter")
    assert found(check(recipe)) == [
        ("warning", 1, "'none.jsonl' does not exist"),
        ("error", 2, "unknown key 'nonsense'"),
        ("warning", 4, "'./none' does not exist"),
        ("warning", 6, "the model 'someone/model' is not on this machine"),
        ("error", 8, "unknown operator 'imag_nsfw_filter'; did you mean 'image_nsfw_filter'?"),
    ]


def test_overrides_reach_a_recipe() -> None:
    recipe = write("r.yaml", "process: []")
    assert found(check(recipe, ["dataset_path=none.jsonl"])) == [("warning", 1, "'none.jsonl' does not exist")]


def test_a_model_that_an_earlier_job_makes_is_not_missing() -> None:
    Path("in.jsonl").touch()
    config = write(
        "c.yaml",
        "work_dir: out",
        "execution_job_configs:",
        "  - {hook: ProcessDataHook, meta_name: a, dj_configs: {dataset_path: in.jsonl, export_path: out/m.jsonl}}",
        "  - {hook: ProcessDataHook, meta_name: b, dj_configs: {dataset_path: in.jsonl, export_path: out/b.jsonl,",
        "     process: [image_nsfw_filter: {hf_nsfw_model: ./out/m.jsonl},",
        "               image_watermark_filter: {hf_watermark_model: ./gone}]}}",
    )
    assert found(check(config)) == [("warning", 6, "'./gone' does not exist")]
