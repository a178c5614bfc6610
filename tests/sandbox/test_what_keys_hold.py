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
from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.registry import register
from raysandbox.evaluators.base import DATA_EVALUATORS, DataEvaluator
from raysandbox.executors.base import TRAINERS, ModelTrainer
from raysandbox.executors.train.diffusers import DiffusersTrainer
from raysandbox.hooks.base import Hook
from raysandbox.sandbox.experiment import run_experiment

CALLS = Counter()
ADDRESS = ["first"]
STAMPS = []


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


class _Trainer(ModelTrainer):
    example: ClassVar[Mapping[str, Any]] = {"dataset": "./data.json", "output_dir": "./lora"}

    dataset: InputPath = Field(description="clips")
    output_dir: OutputPath = Field(description="folder")

    @classmethod
    def surroundings(cls, raw):
        STAMPS.append(DiffusersTrainer.surroundings(raw))
        return STAMPS[-1]


@register("trains_alone")
class TrainsAlone(_Trainer):
    """One worker trains."""


@register("trains_together")
class TrainsTogether(_Trainer):
    """Several workers train."""

    distributed = True


@register("TrainHereHook")
class TrainHereHook(Hook):
    """A training without workers."""

    components = TRAINERS
    returns = ("model directory",)

    def run(self, job, context):
        trainer = self.component(job.extra)
        CALLS[trainer.type_name] += 1
        Path(trainer.output_dir).mkdir(parents=True, exist_ok=True)
        return [trainer.output_dir]


@pytest.fixture(autouse=True)
def _fresh():
    CALLS.clear()
    STAMPS.clear()
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


@pytest.mark.parametrize(("trainer", "runs"), [("trains_alone", 1), ("trains_together", 2)])
def test_the_number_of_workers_counts_where_they_train_together(make_config, workspace, trainer, runs):
    Path("data.json").write_text("[]")
    for number in (1, 1, 2):
        text = f"""
work_dir: work
execution_job_configs:
  - hook: TrainHereHook
    meta_name: train
    output: [model]
    resources: {{num_workers: {number}}}
    extra_configs: {{type: {trainer}, dataset: data.json, output_dir: work/lora}}
"""
        run_experiment(make_config(text), resume=True)
    assert CALLS[trainer] == runs


def test_surroundings_are_looked_up_where_inputs_are_and_compared_without_the_iteration(make_config, workspace):
    rows = json.dumps([{"file_path": name, "type": "video"} for name in ("a.mp4", "gone.mp4")])
    text = f"""
work_dir: work
max_iter_num: 2
iter_targets: ["anonymous.data.value > 5"]
execution_job_configs:
  - {{hook: WriteHook, meta_name: clip, output: [path], extra_configs: {{path: work/clips/a.mp4}}}}
  - hook: WriteHook
    meta_name: data
    output: [path, value]
    extra_configs: {{path: work/clips/data.json, text: '{rows}', value: 1}}
  - hook: TrainHereHook
    meta_name: train
    output: [model]
    extra_configs: {{type: trains_alone, dataset: ./work/clips/data.json, output_dir: work/lora}}
"""
    assert run_experiment(make_config(text)).iterations == 2
    folders = [workspace / "work" / f"iter_{number}" / "clips" for number in (1, 2)]
    assert [Path(stamps[0][0][0]) for stamps in STAMPS] == [folder / "a.mp4" for folder in folders]
    assert CALLS["trains_alone"] == 1
