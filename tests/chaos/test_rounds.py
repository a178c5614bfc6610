"""Processes of random kinds are killed while the demos run: they end, and with the same outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.chaos.cluster import ENVIRONMENTS, OneMachine, machines, why_not
from tests.chaos.demos import SMALL, Demo, differences
from tests.chaos.killing import kind_of
from tests.chaos.rounds import Suite

_USERS_HOME = Path.home()  # before a test has a home of its own


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "there are mount namespaces")
@pytest.mark.parametrize("name", SMALL)
def test_a_demo_survives_rounds_of_kills(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    if name == "video" and not (_USERS_HOME / ENVIRONMENTS / "vbench").exists():
        pytest.skip("needs `raysandbox env create vbench`")
    with machines(tmp_path / "cluster", environments=_USERS_HOME / ENVIRONMENTS) as cluster:
        suite = Suite(cluster, {name: SMALL[name]}, tmp_path)
        suite.place()
        suite.run_undisturbed()
        for _ in range(2):
            suite.run_round(name)
        print(suite.table())
        assert all(done.good for done in suite.rounds), suite.rounds
    assert cluster.orphans() == []


def _quick(folder: Path) -> None:
    """An analysis and a recipe on Ray Data, and 3 s of pretended training."""
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"text": "x" * length}) + "\n" for length in range(1, 200)))
    recipe = {"dataset_path": str(data), "engine": "ray", "process": [{"text_length_filter": {"min_len": 6}}]}
    jobs = [
        {
            "hook": "ProcessDataHook",
            "meta_name": "process",
            "output": ["path"],
            "dj_configs": {**recipe, "export_path": "work/kept.jsonl"},
        },
        {
            "hook": "TrainModelHook",
            "meta_name": "train",
            "output": ["model"],
            "input": {"extra_configs.train_dataset": "-1.path"},
            "extra_configs": {"type": "fake", "work_dir": "work/model", "steps": 60, "seconds_per_step": 0.1},
        },
    ]
    config = {
        "work_dir": "work",
        "probe_job_configs": [{"hook": "ProbeViaAnalyzerHook", "meta_name": "look", "dj_configs": recipe}],
        "execution_job_configs": jobs,
    }
    (folder / "quick.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def test_a_short_run_survives_kills_on_one_machine(tmp_path: Path) -> None:
    machine = OneMachine(tmp_path)
    quick = Demo("quick", str(machine.submitted / "quick.yaml"), "work", (), prepare=_quick)
    try:
        suite = Suite(machine, {"quick": quick}, tmp_path, every=4.0, share=0.4)
        quick.place(machine.submitted)
        suite.run_undisturbed()
        done = suite.run_round("quick")
        print(suite.table())
        assert done.good, done
        assert done.kills
    finally:
        machine.end()


def test_what_is_killed_is_known_by_its_command_line() -> None:
    assert kind_of(["python", "-m", "raysandbox", "run", "a.yaml"]) == "driver"
    assert kind_of(["/bin/sh", "-c", "python -m raysandbox run a.yaml"]) is None
    assert kind_of(["ray::_Worker.train"]) == "GPU actor"
    assert kind_of(["ray::MapWorker(MapBatches(_UnitWorker)).submit"]) == "recipe worker"
    assert kind_of(["ray::IDLE"]) is None
    assert kind_of([]) is None


def test_unequal_outputs_are_named() -> None:
    expected = {"a.mp4": "1", "metrics": {"loss@1": 2.0, "loss@2": 1.0}}
    assert differences(expected, expected) == []
    assert differences(expected, {"metrics": {"loss@1": 2.0}}) == [
        "a.mp4: 1 != missing",
        "metrics: 1 of 2 differ (loss@2: 1.0 != None)",
    ]
