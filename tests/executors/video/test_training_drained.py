"""A training whose node is drained goes on elsewhere and leaves what an undisturbed one leaves."""

import hashlib
import json

import pytest

from raysandbox.core.errors import WorkerLeaves
from raysandbox.executors._video.models.tiny import make_tiny_easyanimate
from tests.executors.video.training_setup import clips_in, trained, trainer_of


def left_by(folder):
    """Digests of checkpoints, the losses, and the names of the states."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
    losses = json.loads((folder / "training.json").read_text())["losses"]
    return files, losses, sorted(path.name for path in (folder / ".state").glob("*.safetensors"))


@pytest.mark.parametrize("drained_at", [2, 3])  # step 2 has a checkpoint of its own, step 3 has none
def test_it_writes_what_it_takes_to_go_on_and_leaves_no_trace(tmp_path, drained_at):
    model, clips = make_tiny_easyanimate(tmp_path / "model"), clips_in(tmp_path / "clips", 3)
    whole = trainer_of(model, clips, tmp_path / "whole", max_steps=5, checkpoint_every=2)
    trained(whole, tmp_path / "job")

    moved = trainer_of(model, clips, tmp_path / "moved", max_steps=5, checkpoint_every=2)
    with pytest.raises(WorkerLeaves, match=f"goes on after step {drained_at}"):
        trained(moved, tmp_path / "job", drained_at=drained_at)
    assert (tmp_path / f"moved/checkpoint-{drained_at}.safetensors").exists()
    again = trained(moved, tmp_path / "job")
    assert again.values("step_seconds").keys() == set(range(drained_at + 1, 6))  # no step is done twice
    assert left_by(tmp_path / "moved") == left_by(tmp_path / "whole")


def test_a_training_that_is_done_with_its_last_step_just_ends(tmp_path):
    model, clips = make_tiny_easyanimate(tmp_path / "model"), clips_in(tmp_path / "clips", 3)
    trained(trainer_of(model, clips, tmp_path / "out", max_steps=2), tmp_path / "job", drained_at=2)
    assert (tmp_path / "out/training.json").exists()
