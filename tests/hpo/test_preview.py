from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysandbox.config.load import load_config
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.events import read_events
from raysandbox.hpo import preview as preview_module
from raysandbox.hpo.planning import plan_search
from raysandbox.hpo.preview import preview_search
from raysandbox.hpo.preview_tables import SearchPreview
from raysandbox.hpo.schema import Search
from raysandbox.runtime.session import Cluster, Node
from raysandbox.sandbox.experiment import run_experiment
from raysandbox.sandbox.plan import ExperimentPlan
from raysandbox.sandbox.trials import TrialRecord

BASE: dict[str, Any] = {
    "experiment_name": "e",
    "work_dir": "./out",
    "cache_dir": "./cache",
    "hpo_config": "./sweep.json",
    "probe_job_configs": [
        {
            "hook": "ProcessDataHook",
            "meta_name": "look",
            "dj_configs": {
                "dataset_path": "in.jsonl",
                "export_path": "./out/look.jsonl",
                "process": [{"words_num_filter": {"min_num": 1}}],
            },
        }
    ],
    "execution_job_configs": [
        {
            "hook": "ProcessDataHook",
            "meta_name": "first",
            "output": ["path"],
            "dj_configs": {
                "dataset_path": "in.jsonl",
                "export_path": "./out/first.jsonl",
                "process": [
                    {"text_length_filter": {"min_len": 1}},
                    {"character_repetition_filter": {"rep_len": 3, "max_ratio": 0.9}},
                ],
            },
        },
        {
            "hook": "ProcessDataHook",
            "meta_name": "second",
            "input": {"dj_configs.dataset_path": "anonymous.first.path"},
            "dj_configs": {
                "dataset_path": "unset",
                "export_path": "./out/second.jsonl",
                "process": [{"alphanumeric_filter": {"min_ratio": 0.0}}],
            },
        },
    ],
}
MACHINE = Cluster((Node("m", {"CPU": 2.0, "GPU": 0.0}),), {})


class Store(dict[str, float]):
    """What earlier trials left, by key."""

    def has(self, key: str) -> float | None:
        return self.get(key)


def planned(parameters: dict[str, Any], **sweep: Any) -> tuple[SandboxConfig, ExperimentPlan, Search]:
    sweep = {"method": "random", "run_cap": 6, "metric": {"name": "second.rows_out"}, **sweep, "parameters": parameters}
    Path("in.jsonl").write_text("".join(json.dumps({"text": "a text of some words " * n}) + "\n" for n in range(1, 9)))
    Path("cfg.json").write_text(json.dumps(BASE))
    Path("sweep.json").write_text(json.dumps(sweep))
    config = load_config("cfg.json")
    plan, search = plan_search(config)
    assert search is not None, plan.problems
    return config, plan, search


def previewed(parameters: dict[str, Any], store: Store | None = None, **sweep: Any) -> SearchPreview:
    config, plan, search = planned(parameters, **sweep)
    return preview_search(search, config, plan, store or Store(), cluster=MACHINE)


def runs(preview: SearchPreview) -> dict[str, int]:
    return {job.job.split(".")[1].split("#")[0]: job.distinct for job in preview.jobs}


def facts(preview: SearchPreview) -> dict[str, str]:
    return {row[0]: row[1] for row in preview.tables()[0].rows}


LENGTH = "text_length_filter.min_len"
RATIO = "character_repetition_filter.max_ratio"
REP = "character_repetition_filter.rep_len"


@pytest.mark.usefixtures("workspace")
def test_a_job_runs_once_for_each_combination_of_what_reaches_it() -> None:
    parameters = {REP: {"values": [3, 5]}, "alphanumeric_filter.min_ratio": {"values": [0.0, 0.1, 0.2]}}
    preview = previewed(parameters, method="grid", run_cap=None)
    assert preview.trials == 6
    assert preview.points == "whose points are known"
    assert runs(preview) == {"look": 1, "first": 2, "second": 6}
    assert [job.parameters for job in preview.jobs] == [(), (REP,), ("alphanumeric_filter.min_ratio", REP)]


@pytest.mark.usefixtures("workspace")
def test_thresholds_do_not_repeat_the_statistics() -> None:
    preview = previewed({LENGTH: {"min": 1, "max": 500}, RATIO: {"min": 0.1, "max": 0.9}})
    first = preview.jobs[1]
    assert (first.distinct, first.statistics) == (6, 1)
    assert "statistics once, 6 decisions" in first.shared()
    assert preview.jobs[2].statistics is None
    both = previewed({RATIO: {"min": 0.1, "max": 0.9}, REP: {"values": [3, 5]}})
    assert "statistics 2 times, 6 decisions" in both.jobs[1].shared()


@pytest.mark.usefixtures("workspace")
def test_a_value_outside_of_the_jobs_reaches_all_of_them() -> None:
    assert set(runs(previewed({"max_iter_num": {"values": [1, 2]}}, method="grid")).values()) == {2}


@pytest.mark.usefixtures("workspace")
def test_repeats_multiply_what_the_seed_reaches() -> None:
    seeds = {"seeds": [7, 8, 9], "seed_parameter": "anonymous.second.dj_configs.seed"}
    preview = previewed({REP: {"values": [3, 5]}}, method="grid", **seeds)
    assert preview.trials == 6
    assert runs(preview) == {"look": 1, "first": 2, "second": 6}
    assert facts(preview)["points"].endswith("each with seeds 7, 8, 9")


@pytest.mark.usefixtures("workspace")
def test_the_keys_looked_up_are_those_of_the_run() -> None:
    config, plan, search = planned({RATIO: {"values": [0.4, 0.8]}}, method="grid")
    run_experiment(replace_work_dir(search.trial_config(config, {RATIO: 0.8}, None)))
    store = Store(
        {e["key"]: e["seconds"] for e in read_events(Path("elsewhere/journal.jsonl")) if e["event"] == "job_done"}
    )
    assert len(store) == 3
    preview = preview_search(search, config, plan, store, Path("cache"), cluster=MACHINE)
    assert [(job.stored, job.left) for job in preview.jobs] == [(1, 0), (1, 1), (None, 2)]
    assert preview.jobs[1].seconds in store.values()
    assert "statistics: 2 of 2 stored" in preview.jobs[1].shared()
    rows = {row[0].split("\n")[0]: row for row in preview.tables()[1].rows}
    assert rows["anonymous.first#1"][3:7] == ("2", "2", "1", "1")
    assert "not known before anonymous.second" in facts(preview)["cost"]


def replace_work_dir(config: SandboxConfig) -> SandboxConfig:
    """The same trial in a folder of its own: keys do not say where a run is."""
    moved = json.loads(json.dumps(config.document.data).replace("./out", "./elsewhere"))
    Path("moved.json").write_text(json.dumps(moved))
    return load_config("moved.json")


@pytest.mark.usefixtures("workspace")
def test_what_earlier_trials_took_tells_the_cost() -> None:
    parameters = {RATIO: {"min": 0.1, "max": 0.9}}
    ids = [job.job for job in previewed(parameters).jobs]
    for trial, seconds in (("0000", 2.0), ("0001", 4.0), ("0002", 90.0)):
        done = {"t": 0, "seq": 0, "run": "r", "event": "job_done", "seconds": seconds}
        lines = [{**done, "job": job} for job in ids]
        path = Path("out/trials") / trial / "journal.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    preview = previewed(parameters)
    assert preview.seconds == 4.0 * (1 + 6 + 6)
    assert preview.seconds_apart == 4.0 * 18
    assert facts(preview)["cost"] == ("at most 52 s of jobs, about 26 s by the clock; 6 runs that share nothing: 72 s")


@pytest.mark.usefixtures("workspace")
def test_trials_that_ended_are_not_counted() -> None:
    config, plan, search = planned({RATIO: {"values": [0.2, 0.4, 0.6]}}, method="grid")
    known = [TrialRecord(0, 0, {RATIO: 0.2}, state="done", value=1.0)]
    known += [TrialRecord(1, 1, {RATIO: 0.4}), TrialRecord(2, 2, {RATIO: 0.6}, state="failed")]
    counts = [
        preview_search(each, config, plan, Store(), known=known, cluster=MACHINE).trials
        for each in (search, replace(search, rerun_failed=True))
    ]
    assert counts == [1, 2]


@pytest.mark.usefixtures("workspace")
def test_nothing_is_left() -> None:
    config, plan, search = planned({RATIO: {"values": [0.2, 0.4]}}, method="grid")
    known = [TrialRecord(n, n, {RATIO: value}, state="done", value=1.0) for n, value in enumerate((0.2, 0.4))]
    preview = preview_search(search, config, plan, Store(), known=known, cluster=MACHINE)
    assert (preview.trials, preview.seconds, set(runs(preview).values())) == (0, 0.0, {0})
    assert preview.tables()


@pytest.mark.usefixtures("workspace")
def test_a_search_in_words() -> None:
    parameters = {RATIO: {"min": 0.1, "max": 0.9}}
    hyperband = {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3}
    found = facts(previewed(parameters, method="bayes", early_terminate=hyperband, time_budget="2h"))
    assert found["objective"] == "minimize second.rows_out"
    assert found["algorithm"].startswith("optuna")
    assert found["scheduler"].endswith("at 3, 9 values of the metric")
    assert found["time budget"] == "2.0 h"
    asha = {"type": "asha", "max_t": 64, "grace_period": 2, "reduction_factor": 4}
    found = facts(previewed(parameters, scheduler=asha, resources_per_trial=[{"CPU": 0.5}], max_concurrent=1))
    assert found["scheduler"].endswith("the best 1/4 goes on at 2, 8, 32 values of the metric")
    assert found["algorithm"] == "random, seed 42"
    assert (found["at the same time"], found["a trial holds"]) == ("1 trial", "0.5 CPU (PACK)")
    endless = {"type": "hyperband", "min_iter": 3}
    assert "3, 9, 27, 81, 243, 729, …" in facts(previewed(parameters, early_terminate=endless))["scheduler"]


@pytest.mark.usefixtures("workspace")
def test_adaptive_and_open_searches_say_how_points_are_known() -> None:
    parameters = {RATIO: {"min": 0.1, "max": 0.9}}
    assert previewed(parameters, method="bayes").points == "as if its points were random"
    preview = previewed(parameters, run_cap=None, time_budget=60)
    assert preview.trials == 20
    assert "any number of points" in preview.points


@pytest.mark.usefixtures("workspace")
def test_a_search_with_very_many_points_shows_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_module, "_MOST_POINTS", 5)
    monkeypatch.setattr(preview_module, "_MOST_LOOKUPS", 3)
    preview = previewed({REP: {"min": 1, "max": 1000}}, method="grid", run_cap=900)
    assert (preview.trials, preview.jobs[1].distinct) == (5, 5)
    assert preview.points.endswith("of 900 points the first 5 are shown")
    assert preview.tables()[1].rows[1][5] == "0 of the first 3"


@pytest.mark.usefixtures("workspace")
def test_nothing_heavy_is_imported() -> None:
    planned({RATIO: {"min": 0.1, "max": 0.9}})
    code = (
        "import sys; from tests.hpo.test_preview import *\n"
        "previewed({RATIO: {'min': 0.1, 'max': 0.9}})\n"
        "print({'ray', 'torch', 'optuna', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    root = str(Path(__file__).parents[2])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": root})
    assert found.stdout.strip() == "set()", found.stderr
