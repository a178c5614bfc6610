"""Jobs that trials share: what a key must hold, and what a trial that takes a job finds in its folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from raysandbox.config.schema import SandboxConfig
from raysandbox.core.component import ModelPath
from raysandbox.core.errors import JobFailed
from raysandbox.core.registry import register
from raysandbox.hooks.base import Hook, Job, JobContext
from raysandbox.runtime.watcher_actor import start_watcher
from raysandbox.sandbox.experiment import TrialPlace, run_experiment
from tests.sandbox.conftest import WriteSettings

MakeConfig = Callable[[str], SandboxConfig]
CHANGES: list[Path] = []  # written to while the job runs


@register("StepsHook")
class StepsHook(Hook):
    """Reports steps and fails at first; sets a row aside."""

    settings = WriteSettings
    returns = ("score",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        COUNT["steps"] += 1
        for step in range(3):
            context.report({"loss": float(step)}, step)
            if COUNT["steps"] == 1 and step == 1:
                raise JobFailed("asked to fail")
        context.quarantine.mkdir(parents=True, exist_ok=True)
        (context.quarantine / "bad.jsonl").write_text("bad row")
        return [0.5]


@register("ReadsHook")
class ReadsHook(Hook):
    """Returns what it reads."""

    settings = WriteSettings
    returns = ("text",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        COUNT["reads"] += 1
        for path in CHANGES:
            path.write_text("changed")
        return [Path(str(job.extra["reads"])).read_text()]


@register("ModelsHook")
class ModelsHook(Hook):
    """Makes a model in a folder that other jobs write to as well."""

    settings = WriteSettings
    returns = ("model",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        COUNT["models"] += 1
        folder = Path(str(job.extra["path"]))
        (folder / "model.json").write_text(Path(str(job.extra["reads"])).read_text())
        return [str(folder / "model.json")]


class LoadSettings(BaseModel):
    model: ModelPath = "someone/model"


@register("LoadsHook")
class LoadsHook(Hook):
    """Loads a model of a hub, which its configuration need not name."""

    settings = LoadSettings
    returns = ("value",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        COUNT["loads"] += 1
        return [1]


@register("ProbesHook")
class ProbesHook(Hook):
    """Leaves one summary for all rows."""

    settings = WriteSettings
    is_probe = True

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        COUNT["probes"] += 1
        (context.artifacts / "analysis.json").write_text("the same")
        (context.artifacts / "probe.jsonl").write_text(str(job.extra["text"]))
        return []


@register("UsesProbeHook")
class UsesProbeHook(Hook):
    """Reads the rows of its probe."""

    settings = WriteSettings
    needs_probe = True
    returns = ("text",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        COUNT["uses"] += 1
        assert context.probe is not None
        return [(context.probe / "probe.jsonl").read_text()]


COUNT: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    COUNT.clear()
    CHANGES.clear()


@pytest.fixture
def trial(make_config: MakeConfig, workspace: Path) -> Callable[..., Path]:
    """Runs a trial of a configuration, whose work_dir is `{work}`, and returns its folder."""

    def run(jobs: str, number: int, work: str = "work") -> Path:
        config = make_config(f"work_dir: {work}\nexecution_job_configs:\n{jobs.replace('{work}', work)}")
        base, folder = workspace / work, f"trials/{number:04d}"
        (base / folder).mkdir(parents=True, exist_ok=True)
        (base / folder / "params.json").write_text(str(number))
        place = TrialPlace(
            base, None, workspace / "cache", folder, f"run-{number}", lambda c: start_watcher(c, actor=False)
        )
        run_experiment(config, resume=True, trial=place)
        return base / folder

    return run


def events(folder: Path, *names: str) -> list[str]:
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [line["event"] for line in lines if line["event"] in names]


def values(folder: Path) -> list[tuple[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["name"], line["value"]) for line in lines]


def test_who_takes_a_job_gets_the_values_of_the_attempt_that_succeeded_and_its_bad_rows(
    trial: Callable[..., Path],
) -> None:
    job = "  - {hook: StepsHook, meta_name: s, retries: 1, output: [score]}"
    first, second = trial(job, 0), trial(job, 1)
    assert COUNT["steps"] == 2  # the first attempt failed
    whole = [("s.loss", 0.0), ("s.loss", 1.0), ("s.loss", 2.0), ("s.score", 0.5)]
    assert values(first) == [("s.loss", 0.0), ("s.loss", 1.0), *whole]
    assert values(second) == whole
    found = [path.read_text() for path in (second / "quarantine").rglob("bad.jsonl")]
    assert found == ["bad row"]


def test_a_file_that_changes_while_a_job_runs_makes_no_shared_result(
    trial: Callable[..., Path], workspace: Path
) -> None:
    data = workspace / "in.txt"
    data.write_text("first")
    CHANGES.append(data)
    job = "  - {hook: ReadsHook, meta_name: r, output: [text], extra_configs: {reads: in.txt}}"
    assert events(trial(job, 0), "job_inputs_changed") == ["job_inputs_changed"]
    CHANGES.clear()
    data.write_text("first")
    trial(job, 1)
    assert COUNT["reads"] == 2
    assert events(trial(job, 2), "job_cached", "job_inputs_changed") == ["job_cached"]
    assert COUNT["reads"] == 2


def test_names_of_what_a_pattern_matches_count(trial: Callable[..., Path], workspace: Path) -> None:
    job = "  - {hook: WriteHook, meta_name: w, output: [value], extra_configs: {reads: '[ab].txt'}}"
    keys = []
    for name in ("a.txt", "b.txt"):
        for path in workspace.glob("?.txt"):
            path.unlink()
        (workspace / name).write_text("same")
        with pytest.raises(JobFailed):  # it cannot read a pattern, which does not matter here
            trial(job, len(keys))
        journal = (workspace / f"work/trials/{len(keys):04d}/journal.jsonl").read_text()
        keys.append([json.loads(line)["key"] for line in journal.splitlines() if '"job_started"' in line])
    assert keys[0] != keys[1]


def test_an_output_that_is_the_work_dir_is_shared_and_leaves_the_trials_own_files(
    trial: Callable[..., Path], workspace: Path
) -> None:
    jobs = """
  - {hook: WriteHook, meta_name: w, output: [path], extra_configs: {path: "{work}/kept.txt", text: same, value: NUMBER}}
  - hook: ModelsHook
    meta_name: m
    output: [model]
    input: {extra_configs.reads: -1.path}
    extra_configs: {path: "{work}"}
"""
    folders = [trial(jobs.replace("NUMBER", str(number)), number) for number in range(2)]
    assert COUNT["models"] == 1
    for number, folder in enumerate(folders):
        assert (folder / "params.json").read_text() == str(number)
        assert (folder / "kept.txt").read_text() == (folder / "model.json").read_text() == "same"
        assert events(folder, "job_done", "job_cached") == ["job_done", ["job_done", "job_cached"][number]]
        assert not (folder / "trials").exists()


def test_what_names_a_file_of_the_searchs_folder_serves_no_other_search(
    trial: Callable[..., Path], workspace: Path
) -> None:
    for work in ("first", "second"):
        (workspace / work).mkdir()
        (workspace / work / "in.txt").write_text("same")
    job = """
  - {hook: WriteHook, meta_name: w, output: [path, value], extra_configs: {reads: "{work}/in.txt", value: VALUE}}
"""
    for value, second in (("{work}/in.txt", "job_done"), ("x", "job_cached")):
        found = [trial(job.replace("VALUE", value), len(value), work) for work in ("first", "second")]
        assert [events(folder, "job_done", "job_cached") for folder in found] == [["job_done"], [second]]


def test_the_state_of_a_hub_model_counts(
    trial: Callable[..., Path], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = workspace / "hub" / "models--someone--model" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(workspace / "hub"))
    job = "  - {hook: LoadsHook, meta_name: h, output: [value], extra_configs: {}}"
    for number, commit in enumerate(("one", "two", "one")):
        reference.write_text(commit)
        trial(job, number)
    assert COUNT["loads"] == 2


def test_all_that_a_probe_left_counts_for_who_uses_it(trial: Callable[..., Path]) -> None:
    jobs = """
  - {hook: ProbesHook, meta_name: p, extra_configs: {text: TEXT}}
  - {hook: UsesProbeHook, meta_name: p, output: [text]}
"""
    for number, text in enumerate(("one", "two", "two")):
        trial(jobs.replace("TEXT", text), number)
    assert (COUNT["probes"], COUNT["uses"]) == (2, 2)
