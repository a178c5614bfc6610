"""Generation of videos while actors, a node and the driver are killed, and while nodes come and go."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raysandbox.core.events import read_events
from raysandbox.executors._video.models.tiny import make_tiny_easyanimate
from tests.chaos.raylets import raylets, running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

PROMPTS = [f"a {colour} {shape}" for colour in ("red", "green", "blue", "grey") for shape in ("ball", "box", "car")]


def configuration(folder: Path, **extra: object) -> Path:
    job = {"hook": "InferModelHook", "meta_name": "generate", "output": ["videos"], "extra_configs": extra}
    path = folder / "cfg.yaml"
    path.write_text(yaml.safe_dump({"work_dir": str(folder / "work"), "execution_job_configs": [job]}))
    return path


def tiny_generation(folder: Path, model: Path) -> Path:
    folder.mkdir()
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return configuration(
        folder,
        type="diffusers",
        model=str(model),
        prompts=str(folder / "prompts.txt"),
        videos_per_prompt=2,
        output_dir=str(folder / "videos"),
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=8,
        dtype="fp32",
        seed=7,
    )


def command(config: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "raysandbox", "run", str(config), "--no-cache", *more]


def run(config: Path, environment: dict[str, str], *more: str) -> None:
    done = subprocess.run(
        command(config, *more),
        cwd=config.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.mp4"))}


def events(config: Path, name: str) -> list[dict]:
    return [dict(event) for event in read_events(config.parent / "work/journal.jsonl") if event["event"] == name]


def units_by_node(config: Path) -> Counter[str]:
    nodes = {event["pid"]: event["node"] for event in events(config, "worker_started")}
    return Counter(nodes[int(event["worker"].rpartition(":")[2])] for event in events(config, "unit_done"))


def units_lost(config: Path) -> list[int]:
    """Units that lost workers had at hand."""
    return [event["unit"] for event in events(config, "worker_lost") if event["unit"] is not None]


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[bytes], log: Path, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def test_killed_actor_node_and_driver_change_no_byte(tmp_path: Path) -> None:
    model = make_tiny_easyanimate(tmp_path / "model")
    undisturbed = tiny_generation(tmp_path / "undisturbed", model)
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run(undisturbed, environment)
    expected = digests(tmp_path / "undisturbed/videos")
    assert len(expected) == 2 * len(PROMPTS)

    config = tiny_generation(tmp_path / "disturbed", model)
    videos, log = tmp_path / "disturbed/videos", tmp_path / "driver.log"
    with raylets(tmp_path, 2, 3, gpus=2) as cluster:
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1"}
        with running(command(config), log, cwd=config.parent, env=environment) as driver:
            wait_for(lambda: len(events(config, "unit_done")) >= 2, driver, log)
            cluster.workers("UnitActor")[0].kill()
            wait_for(lambda: len(events(config, "unit_done")) >= 6, driver, log)
            cluster.kill(3)
            wait_for(lambda: len(events(config, "unit_done")) >= 10, driver, log)
        assert 10 <= len(digests(videos)) < len(expected)
        run(config, environment, "--resume")

    assert digests(videos) == expected
    made = Counter(event["file"] for event in events(config, "unit_done"))
    assert set(made.values()) == {1}
    assert set(made) <= set(expected)
    assert len(units_lost(config)) <= 1 + 2, units_lost(config)  # one of the killed worker, two of the dead node
    assert events(config, "worker_lost")
    assert not [path for path in videos.rglob("*") if "tmp" in path.name]


def test_a_node_that_joins_is_used_and_one_that_goes_costs_its_current_units(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {number}\n" for number in range(40)))
    config = configuration(
        tmp_path,
        type="fake",
        prompts=str(tmp_path / "prompts.txt"),
        videos_per_prompt=2,
        output_dir=str(tmp_path / "videos"),
        seconds=3.0,  # on a busy machine a node takes a minute to start
    )
    log = tmp_path / "driver.log"
    with (
        raylets(tmp_path, 2, 3, gpus=2) as cluster,
        running(
            command(config), log, cwd=tmp_path, env={**cluster.environment, "RAY_ADDRESS": cluster.address}
        ) as driver,
    ):
        wait_for(lambda: units_by_node(config)["127.0.0.3"] >= 2, driver, log)
        cluster.kill(3)
        cluster.start(4)
        assert driver.wait(timeout=300) == 0, log.read_text()

    assert len(digests(tmp_path / "videos")) == 80
    made = Counter(event["file"] for event in events(config, "unit_done"))
    assert len(made) == 80
    assert set(made.values()) == {1}
    assert len(units_lost(config)) <= 2, units_lost(config)  # what its two workers had at hand
    by_node = units_by_node(config)
    assert set(by_node) == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
    assert by_node["127.0.0.4"] >= 4, by_node
    print(by_node, "lost:", units_lost(config))
