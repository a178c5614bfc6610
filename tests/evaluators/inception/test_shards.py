"""On Ray: as many workers as one likes give the same bits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from raysandbox.core.progress import Progress
from raysandbox.evaluators.video_inception_evaluator import VideoInceptionEvaluator
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.unit_workers import JobWorkers
from tests.evaluators.inception.tiny_detectors import save_detector, save_rows
from tests.evaluators.inception.workers import InProcess, session
from tests.ops.tiny_clips import save_clip

pytestmark = pytest.mark.usefixtures("cluster")


@dataclass(frozen=True)
class Job:
    resources: Resources
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    id: str = "anonymous.evaluate#0"


def test_four_shards_equal_one(tmp_path):
    for which in ("fake", "real"):
        clips = [save_clip(tmp_path / f"{which}{n}.mp4", 10 * n + len(which), seconds=8) for n in range(3)]
        save_rows(tmp_path / f"{which}.jsonl", clips[: 2 + (which == "real")])
    evaluator = VideoInceptionEvaluator(
        metric="fvd2048_16f",
        fake_data_path=str(tmp_path / "fake.jsonl"),
        real_data_path=str(tmp_path / "fake.jsonl").replace("fake", "real"),
        detector_path=save_detector(tmp_path / "detector.pt"),
        height=24,
        width=32,
    )
    sharded = JobWorkers(Job(Resources(num_workers=4, num_cpus=0.5)), tmp_path / "logs" / "job.log", Progress())
    one = evaluator.evaluate(session(tmp_path / "one", InProcess()))
    four = evaluator.evaluate(session(tmp_path / "four", sharded))
    assert four == one
    kept = [{path.name: path.read_bytes() for path in (tmp_path / n).rglob("*.npz")} for n in ("one", "four")]
    assert kept[0] == kept[1]
    assert len(kept[0]) > 5
