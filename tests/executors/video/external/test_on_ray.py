"""The external backend in Ray's workers: their GPUs, their metrics, and a worker that is killed."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raysandbox.core.progress import Progress
from raysandbox.executors.infer.easyanimate import EasyAnimateInference
from raysandbox.executors.train.easyanimate import EasyAnimateTrainer
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from raysandbox.runtime.watcher_actor import start_watcher
from raysandbox.runtime.workers import run_in_worker
from raysandbox.watcher.config import WatchConfig
from tests.core.test_programs import gone
from tests.executors.video.external_scripts import checkout_in
from tests.executors.video.in_process import InProcessSession


@dataclass(frozen=True)
class Job:
    resources: Resources
    runtime_env: dict[str, Any] = field(default_factory=dict)
    id: str = "anonymous.train#0"
    name: str = "train"


@pytest.fixture
def common(tmp_path):
    (tmp_path / "model").mkdir()
    return {
        "backend": "external",
        "env": sys.executable,
        "source": str(checkout_in(tmp_path / "EasyAnimate")),
        "launcher": "python",
        "model": str(tmp_path / "model"),
    }


def test_training_in_a_bundle_with_a_gpu(cluster, common, tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([{}] * 3))
    paths = {"dataset": str(tmp_path / "data.json"), "output_dir": str(tmp_path / "lora")}
    trainer = EasyAnimateTrainer.model_validate({**common, **paths})
    prepared = trainer.prepare(InProcessSession(tmp_path / "job", allow_user_code=True))
    watcher = start_watcher(WatchConfig("run-1", "p", "e", tmp_path, wandb="disabled"), actor=True)
    context = SimpleNamespace(
        log=tmp_path / "train.log", report=watcher.scoped("train"), emit=lambda event, **fields: None
    )
    try:
        run_in_worker(trainer, Job(Resources(num_gpus=1)), context, prepared)
    finally:
        watcher.finish(5)
    said = json.loads(next(line.split("| ")[1] for line in context.log.read_text().splitlines() if '| {"args"' in line))
    assert said["cuda"] in ("0", "1")  # one of the two, as Ray says
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["value"] for row in rows if row["name"] == "train.loss"}
    assert losses == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    assert (tmp_path / "lora/checkpoint-3.safetensors").exists()


def test_a_worker_that_is_killed_takes_its_script_with_it(cluster, common, tmp_path):
    prompts = [f"prompt {number}" for number in range(4)]
    (tmp_path / "prompts.json").write_text(json.dumps([{"prompt_en": prompt} for prompt in prompts]))
    own = {"STANDIN": "hang once", "STANDIN_PROMPT": prompts[3], "STANDIN_PIDS": str(tmp_path / "pids")}
    job = Job(Resources(num_workers=2, num_cpus=0.5), {"env_vars": {**own, "STANDIN_LOG": str(tmp_path / "log")}})
    inference = EasyAnimateInference.model_validate(
        {
            **common,
            "prompts": str(tmp_path / "prompts.json"),
            "output_dir": str(tmp_path / "videos"),
            "videos_per_prompt": 2,
            "contact_sheet": False,
            "train": {"infer_config": {"gpu_num": 2}},
        }
    )
    session = InProcessSession(tmp_path / "job", allow_user_code=True)
    session = replace(session, workers=JobWorkers(job, tmp_path / "infer.log", Progress()))
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(inference.infer(session)))
    thread.start()
    while not (tmp_path / "pids").exists():
        assert thread.is_alive()
        time.sleep(0.02)
    script, guard = map(int, (tmp_path / "pids").read_text().split())
    worker = int(Path(f"/proc/{guard}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    assert gone(script)
    thread.join(60)
    assert ended == [str(tmp_path / "videos")]
    wanted = {f"{prompt}-{index}.mp4" for prompt in prompts for index in range(2)}
    assert {path.name for path in (tmp_path / "videos").glob("*.mp4")} == wanted
    made = (tmp_path / "log").read_text().splitlines()
    # What the killed worker had finished stays; the script makes all videos of a prompt, or none.
    assert sorted(made) == sorted(["prompt 3-0", *(name.removesuffix(".mp4") for name in wanted)])
