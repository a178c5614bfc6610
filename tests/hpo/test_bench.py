"""The parts of `scripts/bench/hpo` that a change of the package could break unseen."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from raysandbox.config.load import load_config
from raysandbox.hpo.planning import plan_search

BENCH = Path(__file__).parents[2] / "scripts/bench"


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    name = f"bench_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_everything_that_is_timed_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYSANDBOX_BENCH_TIMES", raising=False)
    for name, calls in load(BENCH / "_timed/sitecustomize.py", monkeypatch).CALLS.items():
        for called, _ in calls:
            found = importlib.import_module(name)
            for part in called.split("."):
                found = getattr(found, part)
            assert callable(found)


def test_times_of_a_process(workspace: Path) -> None:
    recipe = {
        "dataset_path": str(workspace / "data.jsonl"),
        "export_path": str(workspace / "kept.jsonl"),
        "process": [{"text_length_filter": {"min_len": 2}}],
    }
    (workspace / "data.jsonl").write_text('{"text": "a b"}\n' * 500)
    (workspace / "recipe.yaml").write_text(json.dumps(recipe))
    times = workspace / "times"
    times.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(BENCH / "_timed"), "RAYSANDBOX_BENCH_TIMES": str(times)}
    subprocess.run(
        [sys.executable, "-m", "raysandbox", "process", "recipe.yaml"], env=environment, check=True, capture_output=True
    )
    sums: Counter[str] = Counter()
    for file in times.iterdir():
        for line in file.read_text().splitlines():
            sums.update(json.loads(line))
    assert set(sums) == {"operators", "rest"}
    assert all(seconds > 0 for seconds in sums.values())


@pytest.mark.parametrize("kind", ["thresholds", "other", "training"])
def test_searches_are_valid(kind: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = load(BENCH / "_searches.py", monkeypatch)
    inputs = workspace / "inputs"
    for name in ("quality-model", "tiny-gpt3"):
        (inputs / name).mkdir(parents=True)
    (inputs / "held_out.jsonl").write_text('{"text": "a"}\n')
    monkeypatch.setattr(searches, "INPUTS", inputs)
    data = workspace / "data.jsonl"
    data.write_text('{"text": "a"}\n')
    content = {
        "thresholds": searches.quality_search(data, searches.THRESHOLDS, 20),
        "other": searches.quality_search(data, {**searches.THRESHOLDS, **searches.REP_LEN}, 20),
        "training": searches.training_search(data, 20),
    }[kind]
    plan, search = plan_search(load_config(searches.write_search(content, workspace)))
    assert not [problem for problem in plan.problems if problem.severity == "error"]
    assert search is not None
    assert search.num_trials == 20


def test_a_trials_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = load(BENCH / "_searches.py", monkeypatch)
    steps = searches.recipe_with({"words_num_filter.min_num": 7, "character_repetition_filter.rep_len": 3})
    assert {"words_num_filter": {"min_num": 7}} in steps
    assert {"character_repetition_filter": {"max_ratio": 0.5, "rep_len": 3}} in steps
    assert len(steps) == len(searches.RECIPE)
