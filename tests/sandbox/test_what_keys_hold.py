"""What a component adds to its job's key: further files, its surroundings; and results that it keeps itself."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from pydantic import Field

from raysandbox.api import check, run
from raysandbox.core.registry import register
from raysandbox.evaluators.base import DATA_EVALUATORS, DataEvaluator

CALLS = Counter()
ADDRESS = ["first"]


@register("reads_more")
class ReadsMore(DataEvaluator):
    """Reads a file that stands in a list, and depends on an address."""

    example: ClassVar[Mapping[str, Any]] = {"tasks": ["arc"]}

    tasks: list[str] = Field(description="names, and paths of files")

    @classmethod
    def more_inputs(cls, raw):
        return [task for task in raw.get("tasks", []) if "/" in task]

    @classmethod
    def surroundings(cls, raw):
        return ADDRESS[0]

    def evaluate(self, session):
        CALLS["reads_more"] += 1
        return 1.0


@register("keeps_its_own")
class KeepsItsOwn(DataEvaluator):
    """Knows by itself what it need not do again."""

    keeps_own_results = True

    def evaluate(self, session):
        CALLS["keeps_its_own"] += 1
        return 1.0


@pytest.fixture(autouse=True)
def _fresh():
    CALLS.clear()
    ADDRESS[0] = "first"
    assert "reads_more" in DATA_EVALUATORS.names()


def config(**extra):
    job = {"hook": "EvaluateDataHook", "meta_name": "m", "output": ["score"], "extra_configs": extra}
    text = {"project_name": "p", "experiment_name": "e", "work_dir": "out", "evaluation_job_configs": [job]}
    Path("a.yaml").write_text(yaml.safe_dump(text))
    return "a.yaml"


def state():
    (found,) = json.loads(Path("out/status.json").read_text())["jobs"].values()
    return found


def test_files_and_surroundings_are_parts_of_the_key(workspace: Path) -> None:
    path = config(type="reads_more", tasks=["arc", "./task.yaml"])
    assert ["does not exist" in str(problem) for problem in check(path)] == [True]
    Path("task.yaml").write_text("one")
    assert check(path) == []
    run(path)
    run(path, resume=True)
    assert (CALLS["reads_more"], state()) == (1, "cached")
    Path("task.yaml").write_text("two")
    run(path, resume=True)
    assert (CALLS["reads_more"], state()) == (2, "done")
    ADDRESS[0] = "second"
    run(path, resume=True)
    assert (CALLS["reads_more"], state()) == (3, "done")


def test_what_keeps_its_own_results_runs_again(workspace: Path) -> None:
    path = config(type="keeps_its_own")
    run(path)
    run(path, resume=True)
    assert (CALLS["keeps_its_own"], state()) == (2, "done")
