"""A disk of 50 MB that fills up in the middle of a generation, a training, a search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.executors.video.training_setup import clips_in
from tests.faults.test_full_disk import ROOT, can_mount

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not can_mount(), reason="mounting a small disk needs root and mount namespaces"),
]

ROUNDS = int(os.environ.get("RAYSANDBOX_FAULT_ROUNDS", "2"))
SIZE = {"height": 32, "width": 32, "num_frames": 9, "dtype": "fp32"}


def _model(folder: Path) -> str:
    pytest.importorskip("diffusers")
    from raysandbox.executors._video.models.tiny import make_tiny_easyanimate

    return str(make_tiny_easyanimate(folder / "model"))


def generation(folder: Path) -> dict[str, Any]:
    (folder / "prompts.txt").write_text("a cat\na dog\na cow\n")
    extra = {"type": "diffusers", "model": _model(folder), "prompts": str(folder / "prompts.txt"), **SIZE}
    extra |= {"videos_per_prompt": 2, "num_inference_steps": 2, "output_dir": str(folder / "work/videos")}
    return {"execution_job_configs": [{"hook": "InferModelHook", "meta_name": "g", "extra_configs": extra}]}


def training(folder: Path) -> dict[str, Any]:
    extra = {"type": "diffusers", "model": _model(folder), "dataset": str(clips_in(folder / "clips", 3)), **SIZE}
    extra |= {"output_dir": str(folder / "work/lora"), "stride": 1, "rank": 4, "alpha": 4, "batch_size": 2}
    extra |= {"max_steps": 12, "checkpoint_every": 3, "gradient_checkpointing": False}
    return {"execution_job_configs": [{"hook": "TrainModelHook", "meta_name": "t", "extra_configs": extra}]}


def search(folder: Path) -> dict[str, Any]:
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(1, 41)))
    recipe = {
        "dataset_path": str(folder / "texts.jsonl"),
        "export_path": str(folder / "work/kept.jsonl"),
        "process": [{"text_length_filter": {"min_len": 1}}],
    }
    extra = {"type": "fake", "work_dir": str(folder / "work/model"), "steps": 5, "seconds_per_step": 0.05}
    return {
        "hpo_config": {
            "method": "grid",
            "metric": {"name": "train.loss", "goal": "minimize"},
            "parameters": {"text_length_filter.min_len": {"values": [5, 10, 20]}},
        },
        "execution_job_configs": [
            {"hook": "ProcessDataHook", "meta_name": "process", "dj_configs": recipe, "output": ["path"]},
            {
                "hook": "TrainModelHook",
                "meta_name": "train",
                "input": {"extra_configs.train_dataset": "-1.path"},
                "extra_configs": extra,
            },
        ],
    }


@pytest.mark.parametrize("kind", [generation, training, search])
def test_a_disk_that_fills_up_is_said_and_what_is_there_is_gone_on_with(
    tmp_path: Path, kind: Callable[[Path], dict[str, Any]]
) -> None:
    work, cache, home = (tmp_path / name for name in ("work", "cache", "home"))
    work.mkdir()
    home.mkdir()
    config = {"work_dir": str(work), "cache_dir": str(cache), **kind(tmp_path)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command = ["unshare", "-m", sys.executable, "-m", "tests.faults.filled_disk", str(tmp_path / "run.yaml")]
    done = subprocess.run(
        [*command, str(work), str(cache), str(ROUNDS)],
        cwd=ROOT,
        env={**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == ROUNDS
    print(*[(each["moment"], each["of"], each["exit"], each["state"]) for each in seen])
    assert any(each["exit"] for each in seen)
    for each in seen:
        assert each["exit"] in (0, 1), each  # 0: nothing was written any more
        assert "Traceback" not in each["text"], each["text"]
        assert not each["exit"] or "No space left on device" in each["text"], each["text"]
        assert each["state"] == ("failed" if each["exit"] else "done"), each
        assert each["same"], each["resumed"] + str({**each, "text": "", "resumed": ""})
        assert each["left"] == [], each["left"]
