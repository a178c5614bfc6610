import json

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.executors._video.training.checkpoints import FINISHED, Checkpoints, Progressed, checkpoint_name
from raysandbox.executors.train._staging import staged

torch = pytest.importorskip("torch")


def write(checkpoints, step):
    """A state and the LoRA that goes with it."""
    from safetensors.torch import save_file

    progress = Progressed(step, [1 / (n + 3) for n in range(step)], {0: 1.5, step: 0.1}, 2.5, {"steps": step})
    checkpoints.write({"weight/a": torch.arange(3.0) + step}, progress)
    save_file({"a": torch.zeros(2)}, checkpoints.folder / checkpoint_name(step))
    checkpoints.forget()
    return progress


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "lora", "key", 2)
    assert made.open() == 0
    return made


def shown(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir() if not path.name.startswith("."))


def states(checkpoints):
    return sorted(path.name for path in (checkpoints.folder / ".state").glob("checkpoint*"))


def test_a_state_comes_back_bit_for_bit(checkpoints):
    progress = write(checkpoints, 3)
    assert checkpoints.open() == 3
    tensors, found = checkpoints.read(3)
    assert found == progress
    assert tensors["weight/a"].tolist() == [3, 4, 5]
    assert set(tensors) == {"weight/a"}
    with pytest.raises(JobFailed, match=r"output_dir: .*checkpoint-7.safetensors is not on this node"):
        checkpoints.read(7)


def test_the_last_states_stay_and_all_checkpoints(checkpoints):
    for step in (1, 2, 10):
        write(checkpoints, step)
    assert states(checkpoints) == [checkpoint_name(10), checkpoint_name(2)]
    assert shown(checkpoints) == [checkpoint_name(step) for step in (1, 10, 2)]
    assert checkpoints.open() == 10


@pytest.mark.parametrize("part", [".state/checkpoint-2.safetensors", "checkpoint-2.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_damaged_checkpoints_are_passed_over_by_name(checkpoints, part, damage, caplog):
    write(checkpoints, 1)
    write(checkpoints, 2)
    file = checkpoints.folder / part
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-3] if damage == "cut" else b"")
    assert checkpoints.open() == 1
    if (part, damage) != (".state/checkpoint-2.safetensors", "gone"):
        assert "checkpoint after step 2 is passed over" in caplog.text
        assert part in caplog.text
        assert shown(checkpoints) == [checkpoint_name(1)]


def test_nothing_whole_means_from_the_beginning(checkpoints):
    write(checkpoints, 1)
    (checkpoints.folder / checkpoint_name(1)).write_bytes(b"")
    assert checkpoints.open() == 0


def test_finished(checkpoints):
    write(checkpoints, 2)
    checkpoints.finish({"steps": 2})
    marker = json.loads((checkpoints.folder / "training.json").read_text())
    assert marker.pop("digests").keys() == {checkpoint_name(2)}
    assert marker == {"key": "key", "steps": 2, "files": [checkpoint_name(2)]}
    assert checkpoints.open() == FINISHED
    (checkpoints.folder / checkpoint_name(2)).unlink()
    assert checkpoints.open() == 0
    assert not (checkpoints.folder / "training.json").exists()


def test_a_checkpoint_that_changed_later_is_no_result(checkpoints, caplog):
    write(checkpoints, 1)
    write(checkpoints, 2)
    checkpoints.finish({"steps": 2})
    file = checkpoints.folder / checkpoint_name(2)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # safetensors reads it
    assert checkpoints.open() == 1
    assert f"{file} has changed since it was written" in caplog.text


def test_another_training_removes_what_is_its_own_and_nothing_else(checkpoints, tmp_path):
    write(checkpoints, 2)
    checkpoints.own("samples")
    (checkpoints.folder / "samples").mkdir()
    checkpoints.finish({})
    (checkpoints.folder / "notes.txt").touch()
    (checkpoints.folder / "checkpoint-9.safetensors").touch()  # of nobody
    (tmp_path / "outside.txt").touch()
    checkpoints.own("../outside.txt")
    other = Checkpoints(checkpoints.folder, "other", 2)
    assert other.open() == 0
    assert shown(other) == ["checkpoint-9.safetensors", "notes.txt"]
    assert states(other) == []
    assert (tmp_path / "outside.txt").exists()
    write(checkpoints, 1)  # a straggler of the training before
    assert other.open() == 0


def test_another_trainers_model_goes_too(tmp_path):
    with staged(tmp_path / "lora") as (folder, _):
        (folder / "model.json").touch()
    checkpoints = Checkpoints(tmp_path / "lora", "key", 1)
    assert checkpoints.open() == 0
    assert shown(checkpoints) == []


def test_torn_notes_mean_another_training(checkpoints):
    write(checkpoints, 2)
    (checkpoints.folder / ".state" / "own.json").write_text("{")
    assert checkpoints.open() == 0
    assert states(checkpoints) == []
