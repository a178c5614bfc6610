"""The three text-to-video pipelines on a processor; the whole of them is run by hand with `-m "slow and vbench"`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from raysandbox.api import check, run
from raysandbox.core.errors import ConfigError, UserError
from raysandbox.core.events import read_events
from raysandbox.provision.environments import environments_dir, interpreter

ROOT = Path(__file__).parents[2]
DEMO = "configs/text_to_video/demo"
PIPELINES = ["1_single_op", "2_multi_op", "3_duplicate"]


@pytest.fixture(scope="session")
def environments() -> Path:
    """The folder of environments of the one who runs the tests."""
    try:
        interpreter("vbench")
    except UserError as error:
        pytest.skip(str(error))
    return environments_dir()


@pytest.fixture
def clone(workspace: Path) -> Path:
    """The configurations and their data as in a fresh clone."""
    shutil.copytree(ROOT / DEMO, workspace / DEMO)
    return workspace


def only_data(config: Path) -> None:
    """Cuts a pipeline off where videos are generated."""
    pipeline = yaml.safe_load(config.read_text())
    jobs = pipeline["execution_job_configs"]
    names = [job["meta_name"] for job in jobs]
    pipeline["execution_job_configs"] = jobs[: names.index("convert") + 1]
    config.write_text(yaml.safe_dump({**pipeline, "evaluation_job_configs": []}))


def entries(name: str) -> list[dict]:
    (file,) = Path(f"outputs/text_to_video_demo/{name}/train_data").iterdir()
    return json.loads(file.read_text())


@pytest.mark.parametrize(("name", "number"), [("1_single_op", 16), ("2_multi_op", 16), ("3_duplicate", 48)])
def test_what_is_trained_on(clone: Path, name: str, number: int) -> None:
    config = clone / DEMO / f"{name}_pipeline.yaml"
    only_data(config)
    run(str(config))
    found = entries(name)
    assert len(found) == number
    assert all(Path(entry["file_path"]).is_file() and "__dj__" not in entry["text"] for entry in found)
    noise = sum("#" in entry["text"] or "红" in entry["text"] for entry in found)
    assert (noise > 0) == (name == "3_duplicate")


@pytest.mark.parametrize("name", PIPELINES)
def test_a_fresh_clone_is_told_what_to_run(clone: Path, name: str) -> None:
    config = f"{DEMO}/{name}_pipeline.yaml"
    with pytest.raises(ConfigError) as caught:
        run(config)
    missing = [str(problem) for problem in caught.value.problems if problem.missing_path]
    assert missing
    assert all("raysandbox env create vbench" in text for text in missing)
    assert not list(Path("outputs").rglob("journal.jsonl"))
    assert all(problem.severity == "warning" for problem in check(config))


@pytest.mark.slow
@pytest.mark.vbench
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_runs_to_its_end(environments: Path, clone: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raysandbox", "run", f"{DEMO}/{name}_pipeline.yaml"],
        env={**os.environ, "RAYSANDBOX_ENVIRONMENTS": str(environments), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    work_dir = Path("outputs/text_to_video_demo") / name
    points: dict[str, list[tuple[int, float]]] = {}
    for event in read_events(work_dir / "metrics.jsonl"):
        points.setdefault(event["name"], []).append((event["step"], event["value"]))
    steps = [step for step, _ in points["train.loss"]]
    assert steps == list(range(1, {"3_duplicate": 24}.get(name, 80) + 1))
    (first, before), *_, (last, after) = points["train.validation_loss"]
    assert (first, last) == (0, steps[-1])
    assert after < 0.8 * before
    assert (work_dir / f"lora/checkpoint-{last}.safetensors").is_file()
    videos = sorted(path.name for path in (work_dir / "generated_videos").glob("*.mp4"))
    assert len(videos) == 12
    assert videos == sorted(path.name for path in (work_dir / "videos_before").glob("*.mp4"))
    changed = [
        path.read_bytes() != (work_dir / "videos_before" / path.name).read_bytes()
        for path in (work_dir / "generated_videos").glob("*.mp4")
    ]
    assert all(changed)
    (sheet,) = work_dir.glob("artifacts/*-generate/contact_sheet.png")
    assert f"]({sheet.relative_to(work_dir)})" in (work_dir / "report.md").read_text()
    assert len(list(sheet.parent.glob("previews/*.webp"))) == 6
    ((_, score),) = points["vbench.temporal_flickering"]
    assert 0.5 < score <= 1
