"""An evaluation while a node is drained, one dies and one joins: the score is that of one that nothing disturbs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raysandbox.core.events import read_events
from tests.chaos.raylets import raylets, running
from tests.chaos.test_video_generation import events, units_lost, wait_for
from tests.executors.conftest import texts
from tests.executors.tiny_language_models import llama

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

WORKERS = "evaluate.workers"
ROWS = 24_000  # 94 units


def evaluation(folder: Path, model: Path, data: Path) -> Path:
    folder.mkdir()
    job = {
        "hook": "EvaluateModelHook",
        "meta_name": "evaluate",
        "output": ["perplexity"],
        "extra_configs": {"type": "perplexity", "model": str(model), "dataset_path": str(data)},
    }
    path = folder / "cfg.yaml"
    path.write_text(yaml.safe_dump({"work_dir": str(folder / "work"), "evaluation_job_configs": [job]}))
    return path


def score(config: Path) -> object:
    (iteration,) = json.loads((config.parent / "work/context_infos.json").read_text())
    (job,) = iteration["pipeline_infos"][0]["job_infos"]
    return job["perplexity"]


def at_work(config: Path) -> float:
    """How many workers have loaded their model, as was told last."""
    told = [event["value"] for event in read_events(config.parent / "work/metrics.jsonl") if event["name"] == WORKERS]
    return told[-1] if told else 0


def test_nodes_come_and_go(tmp_path: Path) -> None:
    words = [" ".join(texts(40, row)) for row in range(200)]
    model = llama(tmp_path / "llama", words)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": words[row % 200] + f" {row}"}) + "\n" for row in range(ROWS)))
    config = evaluation(tmp_path / "disturbed", Path(model), data)
    log = tmp_path / "driver.log"
    command = [sys.executable, "-m", "raysandbox", "run", "--no-cache"]

    with raylets(tmp_path, 2, 3, 4, gpus=1) as cluster:
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1"}
        with running([*command, str(config)], log, env=environment) as driver:
            wait_for(lambda: at_work(config) == 3, driver, log)
            cluster.drain(3, 60)
            wait_for(lambda: bool(events(config, "worker_draining")), driver, log)
            cluster.kill(4)
            cluster.start(5)
            wait_for(lambda: any(e["node"] == "127.0.0.5" for e in events(config, "worker_started")), driver, log)
            assert driver.wait(timeout=600) == 0, log.read_text()
        (notice,) = events(config, "worker_draining")
        assert notice["unit"] is not None
        lost = units_lost(config)
        assert len(lost) <= 1, lost  # what the dead node had at hand, and nothing of the drained one
        print("lost:", lost)
        undisturbed = evaluation(tmp_path / "undisturbed", Path(model), data)
        subprocess.run([*command, str(undisturbed)], env=environment, check=True, timeout=600, capture_output=True)
    assert score(config) == score(undisturbed)
    assert list(read_events(config.parent / "work/journal.jsonl"))
