from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from raysandbox.api import run
from raysandbox.core.errors import ConfigError, JobFailed, RunInterrupted
from raysandbox.core.events import read_events
from raysandbox.runtime.placement import Resources, placement_group_for
from raysandbox.sandbox.trials import TrialRecord, read_trials
from raysandbox.sandbox.view import RunView
from tests.hpo.tiny_searches import ROWS, filtering, training, write
from tests.runtime.elastic import groups_held

pytestmark = pytest.mark.usefixtures("cluster", "texts")

WORK = Path("outputs/search")
ROWS_OUT = {"name": "process.rows_out", "goal": "minimize"}
LOSS = {"name": "train.loss", "goal": "minimize"}


def trials() -> list[TrialRecord]:
    return read_trials(WORK / "journal.jsonl")


def test_grid_to_its_end(workspace: Path) -> None:
    lengths = [5, 10, 20, 30]
    config = filtering(
        workspace,
        {"method": "grid", "metric": ROWS_OUT, "parameters": {"text_length_filter.min_len": {"values": lengths}}},
    )
    run(config)
    found = trials()
    assert [record.state for record in found] == ["done"] * 4
    assert {r.params["text_length_filter.min_len"]: r.value for r in found} == {n: ROWS - n + 1 for n in lengths}
    status = json.loads((WORK / "status.json").read_text())
    assert (status["state"], status["jobs"]["trials/0003"]) == ("done", "done")
    rows = list(csv.DictReader((WORK / "trials.csv").read_text().splitlines()))
    assert [float(row["value"]) for row in rows] == [record.value for record in found]
    assert len((WORK / "trials/0002/kept.jsonl").read_text().splitlines()) == ROWS - 20 + 1
    assert not (WORK / "kept.jsonl").exists()  # every trial has its own

    best = run(WORK / "best_config.yaml")
    assert yaml.safe_load((WORK / "best_config.yaml").read_text())["hpo_config"] is None
    assert len((WORK / "kept.jsonl").read_text().splitlines()) == ROWS - 30 + 1
    assert best.work_dir == WORK / "best"


def test_what_the_best_trial_made_and_is_no_longer_so_is_said(workspace: Path) -> None:
    hpo = {"method": "grid", "metric": ROWS_OUT, "parameters": {"text_length_filter.min_len": {"values": [5, 6]}}}
    config = filtering(workspace, hpo)
    run(config)
    for trial, said in (("0000", False), ("0001", True)):
        kept = WORK / f"trials/{trial}/kept.jsonl"
        kept.write_bytes(kept.read_bytes()[:10])
        run(config, resume=True)
        notes = json.loads((WORK / "status.json").read_text())["notes"]
        assert any(str(kept) in note for note in notes) == said, notes
    assert [record.value for record in trials()] == [36, 35]


def test_trials_share_jobs(workspace: Path) -> None:
    hpo = {"method": "grid", "metric": ROWS_OUT, "parameters": {"text_length_filter.min_len": {"values": [5, 6, 5]}}}
    run(filtering(workspace, {**hpo, "max_concurrent": 1}))
    assert [record.cached for record in trials()] == [(0, 1), (0, 1), (1, 1)]
    assert [record.value for record in trials()] == [36, 35, 36]  # a job that is taken tells its metrics again
    config = filtering(workspace, hpo, work_dir="./outputs/another")
    config.write_text(config.read_text().replace("./outputs/search/", "./outputs/another/"))
    run(config)  # other folders, the same work
    assert [record.cached for record in read_trials(Path("outputs/another/journal.jsonl"))] == [(1, 1)] * 3
    kept = [Path(f"{folder}/trials/0001/kept.jsonl").read_bytes() for folder in ("outputs/search", "outputs/another")]
    assert kept[0] == kept[1]


def test_a_signal_is_said_before_the_trials_have_ended(workspace: Path) -> None:
    hpo = {"method": "grid", "metric": ROWS_OUT, "parameters": {"text_length_filter.min_len": {"values": [5, 6]}}}
    seen: list[str] = []

    class Signalled(RunView):
        def search_started(self, *_: object) -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
            except KeyboardInterrupt:
                seen.append(json.loads((WORK / "status.json").read_text())["state"])
                raise

    with pytest.raises(RunInterrupted):
        run(filtering(workspace, hpo), view=Signalled())
    assert seen == ["interrupted"]


def test_planted_best_and_early_stopping(workspace: Path) -> None:
    floors = [3.0, 2.5, 0.0, 2.9, 2.8, 2.7]
    hpo = {
        "method": "grid",
        "metric": LOSS,
        "parameters": {"anonymous.train.extra_configs.floor": {"values": floors}},
        "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3},
        "max_concurrent": 1,
    }
    run(training(workspace, hpo, steps=20, seconds_per_step=0.1))
    found = trials()
    assert [record.state for record in found] == ["done", "done", "done", "stopped", "stopped", "stopped"]
    assert all("early" in record.reason for record in found if record.state == "stopped")
    ran = [
        sum(line["name"] == "train.loss" for line in read_events(WORK / f"trials/{record.name}/metrics.jsonl"))
        for record in found
    ]
    assert ran[:3] == [20, 20, 20]
    assert max(ran[3:]) < 20
    best = yaml.safe_load((WORK / "best_config.yaml").read_text())
    assert best["execution_job_configs"][0]["extra_configs"]["floor"] == 0.0
    assert json.loads((WORK / "trials/0003/status.json").read_text())["state"] == "interrupted"


def test_trials_that_go_wrong(workspace: Path) -> None:
    cases = {
        "raises": {"fail_at": 2},
        "without the metric": {"silent": True},
        "not a number": {"floor": float("nan")},
        "hangs": {"seconds_per_step": 600.0},
        "good": {},
    }
    parameters = {
        f"anonymous.train.extra_configs.{name}": {"values": values}
        for name, values in {
            "fail_at": [None, 2],
            "silent": [False, True],
            "floor": [0.0, float("nan")],
            "seconds_per_step": [0.0, 600.0],
        }.items()
    }
    defaults = {"fail_at": None, "silent": False, "floor": 0.0, "seconds_per_step": 0.0}
    points = [
        {f"anonymous.train.extra_configs.{name}": value for name, value in {**defaults, **case}.items()}
        for case in cases.values()
    ]
    hpo = {
        "method": "random",
        "metric": LOSS,
        "parameters": parameters,
        "points_to_evaluate": points,
        "run_cap": len(points),
        "trial_timeout": 20,
    }
    run(training(workspace, hpo, steps=3))
    found = dict(zip(cases, trials(), strict=True))
    assert {name: record.state for name, record in found.items()} == dict.fromkeys(cases, "failed") | {"good": "done"}
    assert "fails at step 2" in found["raises"].reason
    assert "train.loss" in found["without the metric"].reason
    assert "nan" in found["not a number"].reason.lower()
    assert "trial_timeout of 20 s" in found["hangs"].reason


def test_no_good_trial_is_a_failed_search(workspace: Path) -> None:
    hpo = {
        "method": "grid",
        "metric": LOSS,
        "parameters": {"anonymous.train.extra_configs.fail_at": {"values": [1, 2]}},
    }
    with pytest.raises(JobFailed, match=r"none of the 2 trials has a value.*fails at step"):
        run(training(workspace, hpo))
    assert json.loads((WORK / "status.json").read_text())["exit"] == 1


def test_resume_refuses_another_search(workspace: Path) -> None:
    hpo = {"method": "grid", "metric": ROWS_OUT, "parameters": {"text_length_filter.min_len": {"values": [5]}}}
    run(filtering(workspace, hpo))
    hpo["parameters"] = {"text_length_filter.min_len": {"values": [5, 7]}}
    with pytest.raises(ConfigError, match=r"hpo_config: is not the search.*\n.*\+.*- 7"):
        run(filtering(workspace, hpo), resume=True)
    assert len(trials()) == 1


def test_seeds_repeat_points(workspace: Path) -> None:
    hpo = {
        "method": "grid",
        "metric": LOSS,
        "parameters": {"anonymous.train.extra_configs.floor": {"values": [1.0, 0.5]}},
        "seeds": [7, 8],
    }
    run(training(workspace, hpo, steps=3))
    found = trials()
    assert [(record.point, record.seed) for record in found] == [(0, 7), (0, 8), (1, 7), (1, 8)]
    assert len({record.value for record in found}) == 4  # the seed is the training's


def test_trainings_work_in_the_bundles_of_their_trials(workspace: Path) -> None:
    floors = {"anonymous.train.extra_configs.floor": {"values": [1.0, 2.0, 3.0, 4.0]}}
    hpo = {"method": "grid", "metric": LOSS, "parameters": floors}
    config = training(workspace, hpo, {"num_gpus": 1, "num_cpus": 0.5}, steps=3, seconds_per_step=0.3)
    run(config)
    assert [record.state for record in trials()] == ["done"] * 4
    events = list(read_events(WORK / "journal.jsonl"))
    began, ended = (
        {event["trial"]: event["t"] for event in events if event["event"] == kind}
        for kind in ("trial_started", "trial_ended")
    )
    at_once = [sum(began[trial] <= at < ended[trial] for trial in began) for at in began.values()]
    assert max(at_once) == 2  # as many as there are GPUs
    assert not groups_held()


def test_changed_data_run_every_trial_again(workspace: Path) -> None:
    hpo = {"method": "grid", "metric": ROWS_OUT, "parameters": {"text_length_filter.min_len": {"values": [5, 10]}}}
    config = filtering(workspace, hpo)
    run(config)
    run(config, resume=True)
    assert [record.attempts for record in trials()] == [1, 1]
    lines = Path("texts.jsonl").read_text().splitlines(keepends=True)
    Path("texts.jsonl").write_text("".join(lines[:20]))
    run(config, resume=True)
    assert [record.value for record in trials()] == [16, 11]
    assert [record.value for record in read_trials(WORK / "previous/1/journal.jsonl")] == [36, 31]


def test_trials_that_a_time_budget_cut_off_are_finished_later(workspace: Path) -> None:
    hpo = {
        "method": "grid",
        "metric": LOSS,
        "parameters": {"anonymous.train.extra_configs.floor": {"values": [1.0, 0.5]}},
    }
    with pytest.raises(JobFailed, match="none of the"):
        run(training(workspace, {**hpo, "time_budget": 5}, steps=100, seconds_per_step=0.1))
    assert {record.state for record in trials()} == {"running"}
    run(training(workspace, hpo, steps=100, seconds_per_step=0.1), resume=True)
    assert [(record.state, len(record.history)) for record in trials()] == [("done", 100)] * 2


def test_values_of_every_iteration_count(workspace: Path) -> None:
    recipe = {
        "dataset_path": str(workspace / "texts.jsonl"),
        "export_path": "./outputs/search/kept.jsonl",
        "process": [{"random_selector": {"select_ratio": 0.5}}],
    }
    extra = {"type": "fake", "work_dir": "./outputs/search/model", "steps": 3}
    jobs = [
        {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["kept"]},
        {
            "hook": "TrainModelHook",
            "meta_name": "train",
            "extra_configs": extra,
            "input": {"extra_configs.train_dataset": "-1.kept"},
        },
    ]
    updater = {"anonymous.process.kept": "anonymous.process.dj_configs.dataset_path"}
    hpo = {"method": "grid", "metric": LOSS, "parameters": {"anonymous.train.extra_configs.floor": {"values": [1.0]}}}
    run(write(workspace, hpo, jobs, max_iter_num=2, iter_updater=updater))
    assert [len(record.history) for record in trials()] == [6]


def test_a_failed_search_leaves_no_best_configuration_of_an_earlier_one(workspace: Path) -> None:
    hpo = {"method": "grid", "metric": ROWS_OUT, "parameters": {"text_length_filter.min_len": {"values": [5]}}}
    run(filtering(workspace, hpo))
    Path("texts.jsonl").write_text("no JSON\n")
    with pytest.raises(JobFailed):
        run(filtering(workspace, hpo))
    assert not (WORK / "best_config.yaml").exists()
    assert (WORK / "previous/1/best_config.yaml").exists()
    assert (WORK / "trials.csv").exists()


def test_trials_that_find_no_room_say_who_has_it(workspace: Path) -> None:
    resources = {"num_gpus": 1, "num_cpus": 0.5, "timeout_s": 2}
    floors = {"anonymous.train.extra_configs.floor": {"values": [0.0, 1.0]}}
    config = training(workspace, {"method": "grid", "metric": LOSS, "parameters": floors}, resources)
    found = r"no trial found room within 2 s: each holds \(0.5 CPU, .* GPU\).*free now: \(. CPU, 0 GPU\).*hold: a job"
    with placement_group_for(Resources(num_gpus=2)), pytest.raises(JobFailed, match=found):
        run(config)
    assert json.loads((WORK / "status.json").read_text())["state"] == "failed"
    assert groups_held() == []
    run(config, resume=True)
    assert [record.state for record in trials()] == ["done", "done"]
