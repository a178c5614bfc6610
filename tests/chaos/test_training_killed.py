"""`kill -9` in the middle of a LoRA's training, of its worker and of the driver: the losses stay the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from raysandbox.executors._video.models.tiny import make_tiny_easyanimate
from tests.chaos.test_kill_driver import assert_no_orphans, command, events, run
from tests.executors.video.training_setup import clips_in, trained, trainer_of

pytestmark = pytest.mark.chaos

STEPS = 40


def worker_of(folder: Path) -> int:
    """The process that trains."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            title = (process.info["cmdline"] or [""])[0]
            if title.startswith("ray::_Worker") and process.cwd().startswith(str(folder)):
                return process.pid
    raise AssertionError("no worker trains")


def checkpoint_of(folder: Path, least: int, driver: subprocess.Popen[bytes]) -> None:
    """Waits for a checkpoint after a step or later."""
    end = time.monotonic() + 300
    while not any((folder / "lora" / f"checkpoint-{step}.safetensors").exists() for step in range(least, STEPS)):
        assert driver.poll() is None, (folder / "run.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_training_ends_with_the_losses_of_one_that_was_not(tmp_path: Path) -> None:
    model = make_tiny_easyanimate(tmp_path / "model")
    clips = clips_in(tmp_path / "clips", 5)
    numbers = {"max_steps": STEPS, "checkpoint_every": 4, "lr_scheduler": "cosine"}
    whole = trainer_of(model, clips, tmp_path / "whole", **numbers)
    losses = list(trained(whole, tmp_path / "job").values("loss").values())

    job = {
        "hook": "TrainModelHook",
        "meta_name": "train",
        "extra_configs": {
            "type": "diffusers",
            **whole.model_dump(mode="json", exclude_unset=True),
            "output_dir": str(tmp_path / "lora"),
        },
    }
    config = {"work_dir": "work", "cache_dir": "cache", "execution_job_configs": [job]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    with (tmp_path / "run.log").open("wb") as log:
        driver = subprocess.Popen(command("a.yaml"), cwd=tmp_path, stdout=log, stderr=log)
        try:
            checkpoint_of(tmp_path, 4, driver)
            os.kill(worker_of(tmp_path), signal.SIGKILL)
            checkpoint_of(tmp_path, 20, driver)
            driver.kill()
            driver.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                driver.kill()
    assert not (tmp_path / "lora" / "training.json").exists()
    assert_no_orphans(tmp_path)
    run(tmp_path, command("a.yaml", "--resume"))
    assert json.loads((tmp_path / "lora" / "training.json").read_text())["losses"] == losses
    assert events(tmp_path / "work", "job_done") == ["anonymous.train#0"]
    told = [json.loads(line) for line in (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()]
    seen = {each["step"]: each["value"] for each in told if each["name"] == "train.loss"}
    assert set(seen) == set(range(1, STEPS + 1))
