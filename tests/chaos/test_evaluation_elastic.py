"""An evaluation while a node is drained, one dies and one joins: the score is that of one that nothing disturbs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raysandbox.core.events import read_events
from tests.chaos.raylets import raylets
from tests.chaos.test_video_generation import events, wait_for
from tests.executors.conftest import texts
from tests.executors.tiny_language_models import llama

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

ROWS = 60_000


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


def test_nodes_come_and_go(tmp_path: Path) -> None:
    words = [" ".join(texts(40, row)) for row in range(200)]
    model = llama(tmp_path / "llama", words)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"text": words[row % 200] + f" {row}"}) + "\n" for row in range(ROWS)))
    config = evaluation(tmp_path / "disturbed", Path(model), data)
    log = tmp_path / "driver.log"
    with raylets(tmp_path, 2, 3, 4, gpus=1) as cluster, log.open("wb") as output:
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "raysandbox", "run", "--no-cache"]
        driver = subprocess.Popen([*command, str(config)], env=environment, stdout=output, stderr=output)

        def started(node: str) -> bool:
            return any(event["node"] == node for event in events(config, "worker_started"))

        wait_for(lambda: all(started(f"127.0.0.{number}") for number in (2, 3, 4)), driver, log)
        cluster.drain(3, 60)
        wait_for(lambda: bool(events(config, "worker_draining")), driver, log)
        cluster.kill(4)
        cluster.start(5)
        wait_for(lambda: started("127.0.0.5"), driver, log)
        assert driver.wait(timeout=600) == 0, log.read_text()
        lost = [event for event in events(config, "worker_lost") if event["unit"] is not None]
        assert len(lost) <= 1, lost  # the dead node's current unit
        undisturbed = evaluation(tmp_path / "undisturbed", Path(model), data)
        subprocess.run([*command, str(undisturbed)], env=environment, check=True, timeout=600, capture_output=True)
    assert score(config) == score(undisturbed)
    assert list(read_events(config.parent / "work/journal.jsonl"))
