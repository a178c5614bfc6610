"""The searches that `hpo` measures: their configurations, and how they and the loop without a search are run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _data import RECIPE
from _measure import run_command

from raysandbox.sandbox.trials import TrialRecord, read_trials

__all__ = ["Costs", "Side", "loop", "quality_search", "search", "training_search", "write_search"]

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ROOT / "configs/demo/data"  # made by scripts/make_demo_inputs
THRESHOLDS = {
    "text_length_filter.min_len": {"distribution": "q_log_uniform_values", "min": 50, "max": 1000, "q": 10},
    "words_num_filter.min_num": {"min": 10, "max": 60},
    "alphanumeric_filter.min_ratio": {"min": 0.25, "max": 0.6},
    "maximum_line_length_filter.min_len": {"min": 20, "max": 60},
    "special_characters_filter.max_ratio": {"min": 0.2, "max": 0.4},
}
REP_LEN = {"character_repetition_filter.rep_len": {"values": [5, 10, 15]}}
# Two texts' lengths and two shares: at most four data sets.
FEW = {
    "text_length_filter.min_len": {"values": [50, 1000]},
    "special_characters_filter.max_ratio": {"values": [0.25, 0.4]},
}


@dataclass(frozen=True)
class Costs:
    """What some commands took.

    Attributes:
        seconds: wall time.
        cpu: CPU seconds of all processes.
        kinds: CPU seconds by kind, see `_timed`.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    kinds: Mapping[str, float] = field(default_factory=dict)

    @property
    def work(self) -> float:
        """CPU seconds in operators, evaluators and trainers."""
        return sum(seconds for kind, seconds in self.kinds.items() if kind != "rest")

    @property
    def engine(self) -> float:
        """The same, with what it takes to read, look up and write their rows."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        costs: of all its trials.
        values: trial → its value.
        trials: as the journal tells them; none of a loop.
    """

    costs: Costs
    values: Mapping[int, float | None]
    trials: Sequence[TrialRecord] = ()


def quality_search(data: Path, parameters: Mapping[str, Any], trials: int) -> dict[str, Any]:
    """A search over a recipe whose texts are scored by the demo's quality model."""
    return {
        "hpo_config": _sweep("quality_score", "maximize", parameters, trials),
        "execution_job_configs": [_process(data)],
        "evaluation_job_configs": [_evaluate("anonymous.process.kept")],
    }


def training_search(data: Path, trials: int) -> dict[str, Any]:
    """The same with a training of the demo's small GPT-3, which is scored by its loss on held-out texts."""
    settings = json.loads((ROOT / "configs/demo/gpt3_extra_train_config.json").read_text())
    train = {
        "hook": "TrainModelHook",
        "meta_name": "train",
        "extra_configs": {
            **settings,
            "eval_dataset": str(INPUTS / "held_out.jsonl"),
            "model_name": str(INPUTS / "tiny-gpt3"),
            "work_dir": "./out/model",
        },
        "input": {"extra_configs.train_dataset": "anonymous.process.kept"},
        "output": ["model_path"],
    }
    return {
        "hpo_config": _sweep("train.eval_loss", "minimize", FEW, trials),
        "execution_job_configs": [_process(data), train],
        "evaluation_job_configs": [_evaluate("anonymous.process.kept")],
    }


def _sweep(metric: str, goal: str, parameters: Mapping[str, Any], trials: int) -> dict[str, Any]:
    return {
        "method": "random",
        "metric": {"name": metric, "goal": goal},
        "parameters": dict(parameters),
        "sweep_max_count": trials,
    }


def _process(data: Path) -> dict[str, Any]:
    recipe = {"dataset_path": str(data), "export_path": "./out/kept.jsonl", "process": RECIPE}
    return {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["kept"]}


def _evaluate(kept: str | Path) -> dict[str, Any]:
    scorer = {"type": "dj_text_quality_classifier", "model": str(INPUTS / "quality-model")}
    job = {"hook": "EvaluateDataHook", "meta_name": "evaluate", "output": ["quality_score"]}
    if isinstance(kept, Path):
        return {**job, "extra_configs": {**scorer, "dataset_path": str(kept)}}
    return {**job, "extra_configs": scorer, "input": {"extra_configs.dataset_path": kept}}


def search(content: Mapping[str, Any], folder: Path, *more: str) -> Side:
    """Runs a search in a folder and with a home of its own, both removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with at_home(folder) as times:
        costs = _costs([*command("run", write_search(content, folder)), *more], folder, times)
    trials = read_trials(folder / "out/journal.jsonl")
    failed = [record for record in trials if record.state == "failed"]
    if failed:
        sys.exit(f"trial {failed[0].name} of {folder.name} failed: {failed[0].reason}")
    shutil.rmtree(folder)
    return Side(costs, {record.number: record.value for record in trials}, trials)


def loop(trials: Sequence[TrialRecord], data: Path, folder: Path) -> Side:
    """The trials of a search by hand: a recipe and an evaluation each, with caches off."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    sums, values = Costs(), {}
    with at_home(folder) as times:
        for record in trials:
            kept = folder / f"kept-{record.name}.jsonl"
            recipe = {"dataset_path": str(data), "export_path": str(kept), "process": recipe_with(record.params)}
            evaluation = {"work_dir": f"./eval-{record.name}", "evaluation_job_configs": [_evaluate(kept)]}
            for name, verb, content in (("recipe", "process", recipe), ("evaluate", "run", evaluation)):
                file = folder / f"{name}-{record.name}.yaml"
                file.write_text(json.dumps(content))
                wanted = [*command(verb, file), "--no-cache"]
                if record.number == 0:
                    print(f"  $ {shlex.join(wanted)}   (… {trials[-1].name})", flush=True)
                costs = _costs(wanted, folder, times)
                sums = Costs(sums.seconds + costs.seconds, sums.cpu + costs.cpu, costs.kinds)
            infos = json.loads((folder / f"eval-{record.name}/context_infos.json").read_text())
            values[record.number] = infos[-1]["pipeline_infos"][0]["job_infos"][0]["quality_score"]
            kept.unlink()
    shutil.rmtree(folder)
    return Side(sums, values)


def recipe_with(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The operators of the recipe with the values of a trial."""
    given = {tuple(name.split(".")): value for name, value in params.items()}
    return [
        {name: {**values, **{key: value for (op, key), value in given.items() if op == name}}}
        for step in RECIPE
        for name, values in step.items()
    ]


def write_search(content: Mapping[str, Any], folder: Path) -> Path:
    """Writes a configuration whose outputs stand in `out` beside it."""
    file = folder / "search.yaml"
    whole = {"experiment_name": "bench", "work_dir": "./out", **content}
    file.write_text(json.dumps(whole))  # JSON is YAML
    return file


def command(verb: str, file: Path) -> list[str]:
    """A command of ours."""
    return [sys.executable, "-m", "raysandbox", verb, str(file)]


@contextmanager
def at_home(folder: Path) -> Iterator[Path]:
    """Sets HOME to an empty folder, and lets processes note their times in the one that is returned."""
    home, times = folder / "home", folder / "times"
    home.mkdir()
    times.mkdir()
    before = dict(os.environ)
    path = [str(Path(__file__).with_name("_timed")), *filter(None, [before.get("PYTHONPATH")])]
    os.environ.update(HOME=str(home), PYTHONPATH=os.pathsep.join(path), RAYSANDBOX_BENCH_TIMES=str(times))
    try:
        yield times
    finally:
        os.environ.clear()
        os.environ.update(before)


def _costs(wanted: Sequence[str], folder: Path, times: Path) -> Costs:
    """Runs a command; the kinds are those of all commands so far that note their times in this folder."""
    seconds, watched = run_command(wanted, folder)
    kinds: Counter[str] = Counter()
    for file in times.iterdir():
        for line in file.read_text().splitlines():
            kinds.update(json.loads(line))
    return Costs(seconds, watched.cpu_seconds, dict(kinds))
