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
from tests.executors.video.training_setup import clips_in, session_in, trained, trainer_of

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

    def run(output="lora", family="easyanimate", worker=None, session=None, **options):
        trainer = trainer_of(tiny_models(family), clips[0], tmp_path / output, family, **options)
        return trained(trainer, job, session, **(worker or {}))

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


def test_all_losses_before_the_cut_are_told_again(train):
    options = {"checkpoint_every": 103, "max_steps": 104, "batch_size": 1}
    with pytest.raises(KeyboardInterrupt):
        train(worker={"dies_at": 104}, **options)
    assert list(train(**options).values("loss")) == list(range(1, 105))


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_every": 3},
        {"checkpoint_each_epoch": True},
        {"validation_timesteps": 2},
        {"sample_prompts": ["a dog"]},
        {"sample_options": {"num_inference_steps": 1, "fps": 5}},
        {"gradient_checkpointing": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_training_goes_on_with_other_options_that_leave_the_weights(train, clips, tmp_path, change, caplog):
    options = {
        "checkpoint_every": 2,
        "max_steps": 6,
        "validation_dataset": str(clips[1]),
        "sample_prompts": ["a cat"],
        "sample_options": {"num_inference_steps": 1},
    }
    with pytest.raises(KeyboardInterrupt):
        train(worker={"dies_at": 5}, **options)
    again = train(**{**options, **change})
    assert list(again.values("loss")) == [1, 2, 3, 4, 5, 6]
    assert set(again.values("grad_norm")) == {5, 6}
    assert 0 in again.values("validation_loss")
    lost = {"checkpoint_every": "without checkpoints after steps 3 ", "checkpoint_each_epoch": "after steps 3 "}
    lost["validation_timesteps"] = "held-out losses up to step 4 are at validation_timesteps 4, not 2"
    assert lost.get(next(iter(change)), "") in caplog.text
    assert len(caplog.records) == (next(iter(change)) in lost)
    assert (tmp_path / "lora" / "checkpoint-2.safetensors").exists()


def test_without_caches_a_training_begins_anew_but_for_its_own_retries(train, caplog):
    options = {"checkpoint_every": 2, "max_steps": 3}
    before = train(**options)
    anew = {"use_cache": False, "execution": "second"}
    with pytest.raises(KeyboardInterrupt):
        train(session=anew, worker={"dies_at": 3}, **options)
    assert "of an earlier run of this training, and caches are not read; it is removed: checkpoint-2" in caplog.text
    retried = train(session=anew, **options)
    assert set(retried.values("grad_norm")) == {3}
    assert retried.values("loss") == before.values("loss")
    third = train(session={"use_cache": False, "execution": "third"}, **options)
    assert set(third.values("grad_norm")) == {1, 2, 3}
    assert train(**options).values("grad_norm") == {}


def test_a_finished_training_is_not_run_again(train, clips, tmp_path, caplog):
    options = {"max_steps": 2, "validation_dataset": str(clips[1])}
    first = train(**options)
    before = (tmp_path / "lora" / "checkpoint-2.safetensors").stat().st_mtime_ns
    again = train(**options)
    for name in ("loss", "lr", "validation_loss"):
        assert again.values(name) == first.values(name)
    assert again.values("grad_norm") == {}
    assert caplog.text == ""
    train(**options, checkpoint_every=1)
    assert "the training was done without checkpoints after steps 1 (" in caplog.text
    assert (tmp_path / "lora" / "checkpoint-2.safetensors").stat().st_mtime_ns == before
    assert set(train(max_steps=3).values("grad_norm")) == {1, 2, 3}
    assert "lora: of another training; it is removed: checkpoint-2.safetensors" in caplog.text
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
        videos = sorted((tmp_path / "lora" / "samples" / f"step-{step}").glob("*.mp4"))
        assert len(videos) == 2
        assert read_frames(videos[0]).shape == (9, 32, 32, 3)
    assert "samples" in marker(tmp_path / "lora")["files"]


def test_samples_that_a_kill_took_are_made_when_the_training_goes_on(train, tmp_path):
    options = {"sample_prompts": ["a cat", "a dog"], "sample_options": {"num_inference_steps": 1}}
    options |= {"max_steps": 3, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        train(worker={"dies_at": 3}, **options)
    lost, kept = (tmp_path / "lora" / "samples" / "step-2" / f"{name}-0.mp4" for name in ("a cat", "a dog"))
    video, written = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    train(**options)
    assert lost.read_bytes() == video
    assert kept.stat().st_mtime_ns == written


def test_samples_that_are_asked_for_later_are_of_the_last_checkpoint(train, tmp_path, caplog):
    options = {"max_steps": 2, "checkpoint_every": 1}
    whole = train(**options)
    options |= {"sample_prompts": ["a cat"], "sample_options": {"num_inference_steps": 1}}
    again = train(**options)
    assert again.values("grad_norm") == {}
    assert again.values("loss") == whole.values("loss")
    video = tmp_path / "lora" / "samples" / "step-2" / "a cat-0.mp4"
    before = video.stat().st_mtime_ns
    assert marker(tmp_path / "lora")["steps"] == 2
    train(**options)
    assert video.stat().st_mtime_ns == before
    train(**{**options, "sample_options": {"num_inference_steps": 2}})
    assert video.stat().st_mtime_ns != before
    (tmp_path / "lora" / ".state" / "checkpoint-2.safetensors").unlink()
    train(**{**options, "sample_prompts": ["a dog"]})
    assert "videos of sample_prompts cannot be made any more" in caplog.text


def test_a_sample_that_cannot_be_made_costs_itself_alone(train, tmp_path, monkeypatch, caplog):
    from raysandbox.executors._video.models import pipelines

    generate, calls = pipelines.generate, []

    def sometimes(*given, **named):
        calls.append(1)
        if len(calls) == 1:
            raise JobFailed("every pixel of the video is black")
        return generate(*given, **named)

    monkeypatch.setattr(pipelines, "generate", sometimes)
    told = train(max_steps=1, sample_prompts=["a cat", "a dog"], sample_options={"num_inference_steps": 1})
    assert told.values("failed_samples") == {1: 1}
    assert "no video of 'a cat'" in caplog.text
    assert "every pixel" in caplog.text
    assert [path.name for path in (tmp_path / "lora" / "samples" / "step-1").glob("*.mp4")] == ["a dog-0.mp4"]


def test_workers_share_the_samples(train, clips, tiny_easyanimate, job, tmp_path):
    from raysandbox.executors._video.training.samples import Samples

    prompts = ["a", "b", "c"]
    options = {"sample_prompts": prompts, "sample_options": {"num_inference_steps": 1}}
    train(max_steps=1, **options)
    trainer = trainer_of(tiny_easyanimate, clips[0], tmp_path / "lora", max_steps=1, **options)
    prepared = trainer.prepare(session_in(job))
    transformer = load_transformer(prepared.source, "cpu", "fp32")
    folder = tmp_path / "shared"
    workers = [Samples(trainer, prepared.source, prepared.samples, "cpu", rank, 2) for rank in (0, 1)]
    workers[0].begin(folder)
    counts = []
    for worker in workers:
        assert worker.write(folder, transformer) == 0
        counts.append(len(list(folder.glob("*.mp4"))))
    assert counts == [2, 3]


def test_samples_are_decoded_in_tiles_where_the_options_say_so(train, monkeypatch):
    from diffusers.models.autoencoders.autoencoder_kl_magvit import AutoencoderKLMagvit

    calls = []
    monkeypatch.setattr(AutoencoderKLMagvit, "enable_tiling", lambda self: calls.append(1))
    options = {"max_steps": 1, "sample_prompts": ["a cat"]}
    train("one", sample_options={"num_inference_steps": 1, "vae_tiling": True}, **options)
    assert calls == [1]
    train("two", sample_options={"num_inference_steps": 1, "vae_tiling": False}, vae_tiling=True, **options)
    assert calls == [1, 1]  # the clips were encoded in tiles, the video is not decoded so
    calls.clear()
    train("three", sample_options={"num_inference_steps": 1}, vae_tiling=True, **options)
    assert calls == [1]  # the clips are in the cache


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
    assert trainer.samples == GenerationOptions(
        height=32, width=32, num_frames=9, dtype="fp32", num_inference_steps=25, vae_tiling=False
    )
    assert isinstance(trainer.generation, GenerationOptions)
