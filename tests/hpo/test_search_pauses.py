"""Schedulers that pause trials or change their values, to the end of a search."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raysandbox.api import run
from raysandbox.core.events import read_events
from raysandbox.sandbox.trials import TrialRecord, read_trials
from tests.hpo.tiny_searches import training

pytestmark = [pytest.mark.usefixtures("cluster", "texts"), pytest.mark.timeout(900)]

WORK = Path("outputs/search")
FLOOR = "anonymous.train.extra_configs.floor"
STEPS = 6


def search(workspace: Path, scheduler: Mapping[str, Any], **parameter: Any) -> list[TrialRecord]:
    """Runs a search over trainings whose loss falls towards a floor; every trial is started and ended once."""
    hpo = {
        "method": "random",
        "metric": {"name": "train.loss", "goal": "minimize"},
        "parameters": {FLOOR: parameter},
        "points_to_evaluate": [{FLOOR: value} for value in (3.0, 1.0, 2.0, 0.5)],
        "run_cap": 4,
        "scheduler": scheduler,
    }
    run(training(workspace, hpo, steps=STEPS, seconds_per_step=0.1))
    journal = list(read_events(WORK / "journal.jsonl"))
    for event in ("trial_started", "trial_ended"):
        assert sorted(line["number"] for line in journal if line["event"] == event) == [0, 1, 2, 3]
    return read_trials(WORK / "journal.jsonl")


def assert_falling(record: TrialRecord) -> None:
    """Each value was told once, in its order, and the last one is the trial's."""
    assert all(later < earlier for earlier, later in itertools.pairwise(record.history)), record
    assert record.value == record.history[-1]
    assert len(record.history) <= STEPS


def test_hyperband_pauses_trials(workspace: Path) -> None:
    found = search(workspace, {"type": "hyperband", "max_t": STEPS, "stop_last_trials": False}, min=0.0, max=3.0)
    for record in found:
        assert_falling(record)
    assert found[3].state == "done"
    assert len(found[3].history) == STEPS
    assert min(record.value for record in found if record.value is not None) == found[3].value


def test_median_stopping_pauses_trials(workspace: Path) -> None:
    scheduler = {"type": "median_stopping", "hard_stop": False, "grace_period": 3, "min_samples_required": 2}
    found = search(workspace, scheduler, min=0.0, max=3.0)
    for record in found:
        assert_falling(record)
    assert {record.state for record in found} == {"done"}
    assert {len(record.history) for record in found} == {STEPS}


def test_population_based_training_changes_values(workspace: Path) -> None:
    scheduler = {"type": "pbt", "perturbation_interval": 2, "quantile_fraction": 0.5, "synch": True}
    found = search(workspace, scheduler, min=0.0, max=3.0)
    assert {record.state for record in found} == {"done"}
    start = dict(enumerate((3.0, 1.0, 2.0, 0.5)))
    changed = [record for record in found if record.params[FLOOR] != start[record.number]]
    assert changed
    for record in found:
        losses = [
            line["value"]
            for line in read_events(WORK / f"trials/{record.name}/metrics.jsonl")
            if line["name"] == "train.loss"
        ]
        # The last value is that of the values that the journal tells.
        assert record.value == losses[-1] == pytest.approx(record.params[FLOOR] + 4.0 * 2.718281828**-2, abs=0.03)
