"""The training loop: what it learns, and that restarts, batches and workers change nothing."""

import json
from pathlib import Path

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.executors._video.models.lora import find_lora, load_lora
from raysandbox.executors._video.models.pipelines import PipelineSource, load_transformer
from raysandbox.executors._video.options import GenerationOptions
from raysandbox.executors._video.training.batches import clips_of_step
from tests.executors.video.tiny_pipelines import SIZES
from tests.executors.video.training_setup import clips_in, trained, trainer_of

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A training set of 5 clips and a held-out one of 2."""
    folder = tmp_path_factory.mktemp("clips")
    return clips_in(folder, 5), clips_in(folder, 2, "held_out")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder of a job, whose cache the tests share."""
    return tmp_path_factory.mktemp("job")


@pytest.fixture
def train(tiny_models, clips, job, tmp_path):
    """Trains a tiny EasyAnimate, or another family; a dict of options goes on top of the small ones."""

    def run(output="lora", family="easyanimate", worker=None, **options):
        trainer = trainer_of(tiny_models(family), clips[0], tmp_path / output, family, **options)
        return trained(trainer, job, **(worker or {}))

    return run


def marker(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text())


@pytest.mark.filterwarnings("ignore:In CPU autocast")  # of Mochi's transformer in diffusers
@pytest.mark.parametrize("family", sorted(SIZES))
def test_every_family_learns(train, clips, tmp_path, tiny_models, family):
    told = train(family=family, max_steps=8, learning_rate=1e-2, validation_dataset=str(clips[1]), caption_dropout=0.0)
    held_out = told.values("validation_loss")
    assert list(held_out) == [0, 8]
    assert held_out[8] < held_out[0]
    transformer = load_transformer(PipelineSource(str(tiny_models(family))), "cpu", "fp32")
    load_lora(transformer, find_lora(str(tmp_path / "lora")), 1.0)


def test_what_is_told_and_left(train, clips, tmp_path):
    told = train(checkpoint_every=2, max_steps=5, validation_dataset=str(clips[1]), warmup_steps=1)
    assert list(told.values("loss")) == [1, 2, 3, 4, 5]
    assert list(told.values("validation_loss")) == [0, 2, 4, 5]
    (_, first), *_ = [each for each in told.told if "loss" in each[1]]
    assert set(first) == {"loss", "lr", "grad_norm", "step_seconds", "samples_per_second", "epoch"}
    assert first["lr"] == 1e-3
    assert first["epoch"] == 2 / 5
    files = sorted(path.name for path in (tmp_path / "lora").iterdir())
    assert files == [".state", *(f"checkpoint-{step}.safetensors" for step in (2, 4, 5)), "training.json"]
    assert sorted(path.name for path in (tmp_path / "lora" / ".state").glob("checkpoint*")) == files[2:4]
    summary = marker(tmp_path / "lora")
    assert summary["losses"] == list(told.values("loss").values())
    assert summary["validation_losses"] == {str(step): loss for step, loss in told.values("validation_loss").items()}
    assert summary["checkpoint"] == "checkpoint-5.safetensors"


def test_a_training_that_is_cut_off_goes_on_with_the_same_losses(train, tmp_path):
    options = {"checkpoint_every": 2, "max_steps": 7, "lr_scheduler": "cosine"}
    whole = train("whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train("cut", worker={"dies_at": 6}, **options)
    assert not (tmp_path / "cut" / "training.json").exists()
    again = train("cut", **options)
    losses = whole.values("loss")
    assert again.values("loss") == losses  # told again: those of the steps before may have been lost
    assert set(again.values("grad_norm")) == {5, 6, 7}
    assert marker(tmp_path / "cut")["losses"] == marker(tmp_path / "whole")["losses"]
    last = "checkpoint-7.safetensors"
    assert _weights(tmp_path / "cut" / last) == _weights(tmp_path / "whole" / last)


def _weights(file):
    from safetensors.torch import load_file

    return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}


def test_a_finished_training_is_not_run_again(train, tmp_path):
    train(max_steps=2)
    before = (tmp_path / "lora" / "checkpoint-2.safetensors").stat().st_mtime_ns
    assert train(max_steps=2).told == []
    assert (tmp_path / "lora" / "checkpoint-2.safetensors").stat().st_mtime_ns == before
    assert len(train(max_steps=3).values("loss")) == 3
    assert sorted(path.name for path in (tmp_path / "lora").glob("*.safetensors")) == ["checkpoint-3.safetensors"]


def test_accumulation_changes_nothing(train):
    whole = train("whole", batch_size=4, max_steps=4)
    parts = train("parts", batch_size=1, gradient_accumulation_steps=4, max_steps=4)
    assert list(whole.values("loss").values()) == pytest.approx(list(parts.values("loss").values()), abs=1e-5)
    checkpointed = train("again", batch_size=4, max_steps=4, gradient_checkpointing=True)
    assert list(checkpointed.values("loss").values()) == pytest.approx(list(whole.values("loss").values()), abs=1e-6)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_follows_the_full_one(train, tmp_path, dtype):
    full = train("full", max_steps=3)
    half = train("half", max_steps=3, dtype=dtype, checkpoint_every=2)
    assert list(half.values("loss").values()) == pytest.approx(list(full.values("loss").values()), rel=5e-3)
    from safetensors import safe_open

    with safe_open(tmp_path / "half" / "checkpoint-3.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118
    (tmp_path / "half" / "training.json").unlink()
    (tmp_path / "half" / "checkpoint-3.safetensors").unlink()
    again = train("half", max_steps=3, dtype=dtype, checkpoint_every=2)
    assert again.values("loss") == half.values("loss")
    assert set(again.values("grad_norm")) == {3}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: training on one is not tried")
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_on_a_gpu(train, dtype):
    on_cpu = train("cpu", max_steps=3)
    told = train("gpu", max_steps=3, dtype=dtype, gradient_checkpointing=True, worker={"device": "cuda"})
    assert list(told.values("loss").values()) == pytest.approx(list(on_cpu.values("loss").values()), rel=2e-2)
    assert all(memory > 0 for memory in told.values("peak_memory_gb").values())


def test_a_loss_that_is_no_number_ends_the_training(train, tmp_path):
    with pytest.raises(JobFailed, match=r"the loss is nan at step \d+: lower learning_rate"):
        train(max_steps=20, learning_rate=1e30, max_grad_norm=1e30)
    assert not (tmp_path / "lora" / "training.json").exists()


def test_samples_of_checkpoints(train, tmp_path):
    from raysandbox.executors._video.clips import read_frames

    options = {"sample_prompts": ["a cat", "a/dog"], "sample_options": {"num_inference_steps": 1, "fps": 4}}
    train(max_steps=2, checkpoint_every=1, **options)
    for step in (1, 2):
        videos = sorted((tmp_path / "lora" / "samples" / f"step-{step}").iterdir())
        assert len(videos) == 2
        assert read_frames(videos[0]).shape == (9, 32, 32, 3)
    assert "samples" in marker(tmp_path / "lora")["files"]


def test_each_epoch_is_another_order_of_all_clips():
    steps = [clips_of_step(step, 5, 2, 42) for step in range(1, 6)]
    flat = [clip for step in steps for clip in step]
    assert sorted(flat[:5]) == sorted(flat[5:]) == list(range(5))
    assert flat[:5] != flat[5:]
    assert clips_of_step(1, 2, 5, 0)[:2] != []  # fewer clips than a step takes
    assert len(clips_of_step(1, 2, 5, 0)) == 5


def test_steps_and_rates(tiny_easyanimate, tmp_path):
    trainer = trainer_of(
        tiny_easyanimate, tmp_path / "x.json", tmp_path, max_steps=None, epochs=3, lr_scheduler="linear", warmup_steps=2
    )
    assert trainer.steps(clips=5, workers=2) == 4  # 15 clips, 4 at a time
    assert [trainer.rate(step, 6) / 2e-3 for step in range(1, 7)] == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert trainer.samples == trainer.sample_options.model_copy(
        update={"height": 32, "width": 32, "num_frames": 9, "dtype": "fp32"}
    )
    assert isinstance(trainer.generation, GenerationOptions)
