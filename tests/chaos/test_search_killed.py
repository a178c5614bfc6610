"""`kill -9` of a search's driver at any time, then `run --resume`: no trial is lost, none is run twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from raysandbox.core.events import read_events
from raysandbox.sandbox.trials import TrialRecord, read_trials
from tests.chaos.test_kill_driver import assert_no_orphans

TRIALS = 12
KILLS = 10
LENGTHS = "text_length_filter.min_len"
FLOOR = "anonymous.train.extra_configs.floor"
LOSS = {"name": "train.loss", "goal": "minimize"}
METHODS: dict[str, dict[str, Any]] = {
    "grid": {
        "method": "grid",
        "parameters": {LENGTHS: {"values": [5, 10, 20]}, FLOOR: {"values": [0.0, 1.0, 2.0, 3.0]}},
    },
    "random": {
        "method": "random",
        "parameters": {LENGTHS: {"min": 1, "max": 30}, FLOOR: {"min": 0.0, "max": 3.0}},
        "run_cap": TRIALS,
    },
    "bayes": {
        "method": "bayes",
        "parameters": {LENGTHS: {"min": 1, "max": 30}, FLOOR: {"min": 0.0, "max": 3.0}},
        "run_cap": TRIALS,
    },
}


def write(folder: Path, hpo: Mapping[str, Any], **trainer: Any) -> None:
    """A search of trials that filter 40 texts and pretend to train for half a second."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(1, 41)))
    recipe = {
        "dataset_path": "texts.jsonl",
        "export_path": "work/kept.jsonl",
        "process": [{"text_length_filter": {"min_len": 1}}],
    }
    extra = {"type": "fake", "work_dir": "work/model", "steps": 5, "seconds_per_step": 0.1, **trainer}
    config = {
        "work_dir": "work",
        "hpo_config": {"metric": LOSS, **hpo},
        "execution_job_configs": [
            {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["path"]},
            {
                "hook": "TrainModelHook",
                "meta_name": "train",
                "input": {"extra_configs.train_dataset": "-1.path"},
                "extra_configs": extra,
                "output": ["model"],
            },
        ],
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """Starts the driver, with a home of the folder's own."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "raysandbox", "run", "search.yaml", *more],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(home), "WANDB_MODE": "disabled"},
        )


def finish(folder: Path, *more: str, limit: float = 180) -> None:
    """Runs the search to its end."""
    driver = start(folder, *more)
    try:
        status = driver.wait(limit)
    finally:
        driver.kill()
    assert status == 0, (folder / "driver.log").read_text()


def events(folder: Path, name: str) -> list[Mapping[str, Any]]:
    return [event for event in read_events(folder / "work/journal.jsonl") if event["event"] == name]


def trials(folder: Path) -> list[TrialRecord]:
    return read_trials(folder / "work/journal.jsonl")


def points(folder: Path) -> dict[int, tuple[Mapping[str, Any], float | None, str]]:
    return {record.number: (record.params, record.value, record.state) for record in trials(folder)}


def assert_each_once(folder: Path, count: int = TRIALS) -> None:
    """Every trial ended once, and well."""
    assert sorted(event["number"] for event in events(folder, "trial_ended")) == list(range(count))
    assert {record.state for record in trials(folder)} == {"done"}


def kill_and_resume(folder: Path, kills: int, seed: int) -> None:
    """Kills the driver again and again, at times from its start to its end, and lets it finish."""
    chance = random.Random(seed)
    for kill in range(kills):
        ended, started = len(events(folder, "trial_ended")), len(events(folder, "trial_started"))
        goal = min(ended + chance.randrange(3), TRIALS)
        driver = start(folder, *(["--resume"] if kill else []))
        began = time.monotonic()
        if chance.random() < 0.8:  # some kills come while it starts; most when trials run, wherever they are then
            while driver.poll() is None and (
                len(events(folder, "trial_ended")) < goal or len(events(folder, "trial_started")) == started
            ):
                time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 3.0))
        over = driver.poll() is not None
        driver.kill()
        driver.wait()
        ended = len(events(folder, "trial_ended"))
        print(f"kill {kill}: after {time.monotonic() - began:.2f} s, {ended} trials ended" + ", too late" * over)
    finish(folder, "--resume")


@pytest.mark.chaos
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("method", METHODS)
def test_a_search_survives_kill_9_of_its_driver(tmp_path: Path, method: str) -> None:
    killed = tmp_path / "killed"
    write(killed, METHODS[method])
    kill_and_resume(killed, KILLS, seed=1)
    assert_each_once(killed)
    assert_no_orphans(killed)
    if method != "bayes":
        undisturbed = tmp_path / "undisturbed"
        write(undisturbed, METHODS[method])
        finish(undisturbed)
        assert points(killed) == points(undisturbed)


def processes(folder: Path, name: str) -> list[psutil.Process]:
    """Ray's processes of an actor class that work for the search in the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            title = (process.cmdline() or [""])[0]
            if title.startswith(f"ray::{name}") and process.environ().get("HOME") == str(folder / "home"):
                found.append(process)
    return found


def wait_for_training(folder: Path, number: int, driver: subprocess.Popen[bytes]) -> None:
    """Returns when a trial's training has begun."""
    while not any(
        event["event"] == "job_started" and event["job"].endswith("train#1")
        for event in read_events(folder / f"work/trials/{number:04d}/journal.jsonl")
    ):
        assert driver.poll() is None, (folder / "driver.log").read_text()
        time.sleep(0.02)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_search_softly(tmp_path: Path, signum: int, status: int) -> None:
    write(tmp_path, {"method": "grid", "parameters": {FLOOR: {"values": [0.0, 1.0]}}})
    driver = start(tmp_path)
    wait_for_training(tmp_path, 0, driver)
    driver.send_signal(signum)
    began = time.monotonic()
    assert driver.wait(120) == status, (tmp_path / "driver.log").read_text()
    print(f"ended after {time.monotonic() - began:.1f} s")
    found = json.loads((tmp_path / "work/status.json").read_text())
    assert (found["state"], found["exit"]) == ("interrupted", status)
    assert_no_orphans(tmp_path)
    finish(tmp_path, "--resume")
    assert_each_once(tmp_path, 2)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["WatcherHub", "ResourceTrainable", "TrialRunner"])
def test_a_search_survives_the_death_of_a_process(tmp_path: Path, name: str) -> None:
    hpo = {"method": "grid", "parameters": {FLOOR: {"values": [0.0, 1.0]}}}
    write(tmp_path, hpo, steps=40)
    driver = start(tmp_path)
    wait_for_training(tmp_path, 0, driver)
    time.sleep(1.0)
    [doomed] = [p for p in processes(tmp_path, name) if name != "TrialRunner" or "run" in p.cmdline()[0]]
    doomed.kill()
    assert driver.wait(300) == 0, (tmp_path / "driver.log").read_text()
    assert_each_once(tmp_path, 2)
    first, second = trials(tmp_path)
    assert first.value == pytest.approx(second.value - 1.0)  # pyright: ignore[reportOptionalOperand]
    assert len(second.history) == 40
    if name != "WatcherHub":  # one that dies may take values with it that were not on the disk
        assert len(first.history) == 40
    steps = [
        line["step"]
        for line in read_events(tmp_path / "work/trials/0000/metrics.jsonl")
        if line["name"] == "train.loss"
    ]
    assert set(steps) >= set(range(2, 41))
    assert "its process died" in first.reason or name != "TrialRunner"
