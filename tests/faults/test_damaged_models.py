"""State of generations and trainings, damaged: made again, or refused by the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raysandbox.executors.infer.diffusers import DiffusersInference
from tests.executors.video.in_process import InProcessSession, InProcessWorkers, Killed
from tests.executors.video.training_setup import clips_in, trained, trainer_of
from tests.faults.damages import Snapshot, problems_with, some_damages

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from raysandbox.executors._video.models.tiny import make_tiny_easyanimate

    return make_tiny_easyanimate(tmp_path_factory.mktemp("model"))


class Generation:
    """A generation of four videos, whole or with half of them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.live = folder / "live"
        self.live.mkdir()
        (folder / "prompts.txt").write_text("a cat\na dog\n")
        self.config = {
            "model": str(model),
            "prompts": str(folder / "prompts.txt"),
            "videos_per_prompt": 2,
            "output_dir": str(self.live / "videos"),
            "height": 32,
            "width": 32,
            "num_frames": 9,
            "num_inference_steps": 1,
            "dtype": "fp32",
            "contact_sheet": False,
        }

    def run(self, kill_after: int | None = None) -> None:
        session: Any = InProcessSession(self.live / "job", InProcessWorkers(kill_after=kill_after))
        DiffusersInference.model_validate(self.config).infer(session)

    def results(self) -> dict[str, Any]:
        lines = (self.live / "job/artifacts/00-generate/videos.jsonl").read_text().splitlines()
        rows = [{**json.loads(line), "seconds": None} for line in lines]
        return {"rows": rows} | {path.name: path.read_bytes() for path in (self.live / "videos").glob("*.mp4")}


class Training:
    """A training of six steps with three checkpoints, whole or until the fifth step."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.live = folder / "live"
        self.trainer = trainer_of(model, clips_in(folder / "clips", 2), self.live / "lora", checkpoint_every=2)
        self.losses: dict[int | None, float] = {}

    def run(self, dies_at: int | None = None) -> None:
        self.losses = trained(self.trainer, self.live / "job", dies_at=dies_at).values("loss")

    def results(self) -> dict[str, Any]:
        made = {path.name: path.read_bytes() for path in (self.live / "lora").glob("*.safetensors")}
        return {"losses": self.losses, **made}

    def same(self, wanted: dict[str, Any], damaged: Path, log: str) -> bool:
        """Whether the results are those; a damaged checkpoint before the last may be gone, if that is said."""
        found = self.results()
        earlier = damaged.name in ("checkpoint-2.safetensors", "checkpoint-4.safetensors")
        if earlier and damaged.name not in found and f"{damaged} has changed" in log:
            wanted = {name: value for name, value in wanted.items() if name != damaged.name}
        return found == wanted


@some_damages
@pytest.mark.parametrize("finished", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_generation(tmp_path: Path, model: Path, finished: bool, damage: str) -> None:
    made = Generation(tmp_path, model)
    if finished:
        made.run()
    else:
        with pytest.raises(Killed):
            made.run(kill_after=2)
    snapshot = Snapshot(made.live)
    made.run()
    wanted = made.results()
    problems: list[str] = []
    for path in snapshot.damaged(damage):
        name = str(path.relative_to(made.live))
        problems += problems_with(path, name, {"again": made.run}, lambda: made.results() == wanted)
    assert not problems, "\n".join(problems)


@some_damages
@pytest.mark.parametrize("finished", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_training(tmp_path: Path, model: Path, finished: bool, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    made = Training(tmp_path, model)
    if finished:
        made.run()
    else:
        with pytest.raises(KeyboardInterrupt):
            made.run(dies_at=5)
    snapshot = Snapshot(made.live)
    made.run()
    wanted = made.results()
    problems: list[str] = []
    for path in snapshot.damaged(damage):
        name = str(path.relative_to(made.live))
        caplog.clear()
        acts = {"again": made.run}
        problems += problems_with(path, name, acts, lambda path=path: made.same(wanted, path, caplog.text))
    assert not problems, "\n".join(problems)
