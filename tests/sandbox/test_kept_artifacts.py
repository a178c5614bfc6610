"""What a component makes among its job's artefacts, and goes on from when the job begins anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysandbox.api import run
from raysandbox.core.errors import JobFailed
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.executors.base import MODEL_EVALUATORS
from raysandbox.executors.evaluate._generated import GeneratingEvaluator
from raysandbox.executors.infer.fake import FakeInference
from raysandbox.hooks._session import session_of
from raysandbox.hooks.base import Hook, Job, JobContext
from tests.executors.video.in_process import InProcessWorkers

FAILING: list[bool] = []


@register("counts_videos")
class CountsVideos(GeneratingEvaluator):
    """Makes videos, and cannot score them now and then."""

    generation: FakeInference  # type: ignore[assignment]  # makes videos without a model

    def evaluate(self, session: WorkSession) -> float:
        folder = Path(self.generation.infer(session))
        (session.artifacts / "scores").touch(exist_ok=False)  # nothing else stays
        if FAILING.pop():
            raise JobFailed("no scores today")
        return float(len(list(folder.glob("*.mp4"))))


@register("EvaluateHereHook")
class EvaluateHereHook(Hook):
    """An evaluation without Ray."""

    components = MODEL_EVALUATORS
    returns = ("score",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        session = replace(session_of(job, context), workers=InProcessWorkers())
        return [self.component(job.extra).evaluate(session)]


@pytest.fixture
def path(workspace: Path) -> str:
    Path("prompts.txt").write_text("a cat\na dog\n")
    job = {
        "hook": "EvaluateHereHook",
        "meta_name": "m",
        "output": ["score"],
        "extra_configs": {
            "type": "counts_videos",
            "generation": {"prompts": "prompts.txt", "videos_per_prompt": 2, "seconds": 0, "contact_sheet": False},
        },
    }
    config = {"project_name": "p", "experiment_name": "e", "work_dir": "out", "evaluation_job_configs": [job]}
    config |= {"cache_dir": "cache"}
    Path("a.yaml").write_text(yaml.safe_dump(config))
    return "a.yaml"


def events(name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path("out/journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def test_videos_of_an_evaluation_outlive_scores_that_fail(path: str) -> None:
    """Without the cache: on a cluster its folder is on another file system, where there are no hard links."""
    FAILING[:] = [False, False, True]
    with pytest.raises(JobFailed, match="no scores today"):
        run(path, use_cache=False)
    assert len(list(Path("out/artifacts").rglob("generated_videos/*.mp4"))) == 4
    run(path, resume=True, use_cache=False)
    run(path, resume=True, use_cache=False)  # it keeps its own results: it looks what is left to do
    assert [event["found"] for event in events("units_found")] == [0, 4, 4]
    assert len(events("unit_done")) == 4


def test_videos_that_are_not_wanted_any_more_go(path: str) -> None:
    FAILING[:] = [False, False]
    run(path, use_cache=False)
    Path("prompts.txt").write_text("a cat\na cow\n")
    run(path, resume=True, use_cache=False)
    names = sorted(video.name for video in Path("out/artifacts").rglob("*.mp4"))
    assert names == ["a cat-0.mp4", "a cat-1.mp4", "a cow-0.mp4", "a cow-1.mp4"]
    assert events("units_found")[-1]["found"] == 2
