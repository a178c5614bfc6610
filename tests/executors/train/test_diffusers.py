"""The trainer of LoRAs as a component: its configuration, its data, and on a cluster."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from raysandbox.core.errors import BadRowsError, UserError
from raysandbox.executors._video.models.tiny import make_tiny_easyanimate
from raysandbox.executors.train.diffusers import DiffusersTrainer
from tests.executors.video.training_setup import clips_in, session_in, trained, trainer_of

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_easyanimate(tmp_path_factory.mktemp("models") / "easyanimate")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return clips_in(tmp_path_factory.mktemp("clips"), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 40}, "height is 40: EasyAnimatePipeline needs a multiple of 16"),
        ({"num_frames": 8}, r"num_frames is 8: EasyAnimatePipeline needs 4k \+ 1 frames"),
        ({"sample_prompts": ["a"], "sample_options": {"width": 24}}, "width is 24"),
        ({"max_steps": 3, "warmup_steps": 3}, "warmup_steps must be fewer than max_steps"),
        ({"learning_rates": 1}, "Extra inputs"),
        ({"sample_options": {"attention_backend": "native"}}, "Extra inputs"),
        ({"sample_options": {"dtype": "fp16"}}, "Extra inputs"),
        ({"max_bad_rows": 1.5}, "max_bad_rows\\n.*must be a number of clips, or a share below 1"),
    ],
)
def test_what_cannot_be_trained_is_said_before(model, clips, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(model, clips, tmp_path / "lora", **options)


def test_the_example_and_the_published_defaults():
    trainer = DiffusersTrainer.model_validate(DiffusersTrainer.example)
    assert (trainer.learning_rate, trainer.max_grad_norm, trainer.rank, trainer.alpha) == (1e-4, 0.05, 128, 64)
    assert (trainer.caption_dropout, trainer.drop_above, trainer.dtype) == (0.1, 50, "bf16")
    assert DiffusersTrainer.distributed


def test_a_model_of_another_family_is_refused_by_name(model, clips, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "AllegroPipeline"}))
    with pytest.raises(ValueError, match="AllegroPipeline cannot be trained here"):
        trainer_of(other, clips, tmp_path / "lora")


def test_a_model_that_is_missing(clips, tmp_path):
    trainer = trainer_of(tmp_path / "gone", clips, tmp_path / "lora")
    with pytest.raises(UserError, match="model: there is no folder"):
        trainer.prepare(session_in(tmp_path / "job"))
    assert not (tmp_path / "lora").exists()


def test_missing_and_damaged_clips(model, clips, tmp_path):
    rows = json.loads(clips.read_text())
    (tmp_path / "torn.mp4").write_bytes(Path(rows[0]["file_path"]).read_bytes()[:700])
    bad = [{"file_path": str(tmp_path / name), "text": "", "type": "video"} for name in ("gone.mp4", "torn.mp4")]
    dataset = tmp_path / "set.json"
    dataset.write_text(json.dumps([rows[0], *bad, rows[1]]))
    job, output = tmp_path / "job", tmp_path / "lora"
    with pytest.raises(BadRowsError, match=r"dataset: 1 of 4 clips cannot be trained on.*\n.*row 2: .*gone\.mp4"):
        trainer_of(model, dataset, output).prepare(session_in(job))
    with pytest.raises(BadRowsError, match=r"2 of 4 clips .*max_bad_rows allows 1(.*\n)*.*row 3: .*torn\.mp4: cannot"):
        trainer_of(model, dataset, output, max_bad_rows=1).prepare(session_in(job))
    assert not output.exists()
    session = session_in(job)
    prepared = trainer_of(model, dataset, output, max_bad_rows=2).prepare(session)
    assert len(prepared.clips) == 2
    assert session.metrics == {"dataset_clips": 2, "dataset_bad_clips": 2}
    reasons = (session.quarantine / "dataset.quarantine").read_text().splitlines()
    assert ["gone" in reasons[0], "torn" in reasons[1], len(reasons)] == [True, True, 2]


@pytest.mark.parametrize(("share", "fits"), [(0.5, True), (0.4, False)])
def test_a_share_of_bad_clips(model, clips, tmp_path, share, fits):
    rows = json.loads(clips.read_text())[:1]
    dataset = tmp_path / "set.json"
    dataset.write_text(json.dumps([*rows, {**rows[0], "file_path": "gone.mp4"}]))
    trainer = trainer_of(model, dataset, tmp_path / "lora", max_bad_rows=share)
    if fits:
        assert len(trainer.prepare(session_in(tmp_path / "job")).clips) == 1
        return
    with pytest.raises(BadRowsError, match=r"1 of 2 clips .*max_bad_rows allows 0\.4"):
        trainer.prepare(session_in(tmp_path / "job"))


def test_a_warm_up_that_does_not_end_is_refused(model, clips, tmp_path):
    options = {"max_steps": None, "epochs": 2, "batch_size": 1}  # of 3 clips
    too_long = trainer_of(model, clips, tmp_path / "lora", warmup_steps=6, **options)
    session = session_in(tmp_path / "job")
    with pytest.raises(UserError, match=r"warmup_steps is 6, and the training of 3 clips on 1 .*has 6 steps"):
        too_long.prepare(session)
    assert not (session.cache_dir / "latents").exists()
    trainer = trainer_of(model, clips, tmp_path / "lora", warmup_steps=3, **options)
    with pytest.raises(UserError, match=r"3 clips on 2 worker\(s\) has 3 steps"):
        trained(trainer, tmp_path / "job", world_size=2)


def test_changed_clips_are_another_training(model, clips, tmp_path):
    folder = tmp_path / "clips"
    dataset = clips_in(folder, 2)
    raw = {"dataset": str(dataset), "output_dir": str(tmp_path / "lora"), "model": str(model)}
    before = DiffusersTrainer.surroundings(raw)

    def trains(dataset):
        told = trained(trainer_of(model, dataset, tmp_path / "lora", max_steps=1), tmp_path / "job")
        return bool(told.values("grad_norm"))

    assert trains(dataset)
    assert not trains(dataset)
    clip = json.loads(dataset.read_text())[0]["file_path"]
    os.utime(clip, ns=(1, 1))
    assert DiffusersTrainer.surroundings(raw) != before
    assert not trains(dataset)
    shutil.copy(json.loads(clips.read_text())[2]["file_path"], clip)
    assert trains(dataset)
    assert DiffusersTrainer.surroundings({"model": "x", "dataset": str(tmp_path / "later.json")}) == [
        DiffusersTrainer.surroundings({"dataset": str(tmp_path / "also.json")})[0],
        None,
    ]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("encoded", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_experiment_on_two_workers_learns_as_one_does(model, clips, workspace, encoded):
    from raysandbox.api import run

    numbers = {"learning_rate": 2e-3, "max_steps": 3, "checkpoint_every": 2, "validation_dataset": str(clips)}
    numbers |= {"sample_prompts": ["a", "b", "c"], "sample_options": {"num_inference_steps": 1}}
    alone = trainer_of(model, clips, workspace / "alone", batch_size=2, **numbers)
    together = alone.model_copy(update={"batch_size": 1, "output_dir": "together"})
    job = {
        "hook": "TrainModelHook",
        "meta_name": "train",
        "extra_configs": {"type": "diffusers", **together.model_dump(mode="json", exclude_unset=True)},
        "resources": {"num_workers": 2, "num_gpus": 1},
        "output": ["lora"],
    }
    one = trained(alone, workspace / "job")
    cache = "job/cache" if encoded else "cache"  # else a pass of Ray Data fills it
    config = {"work_dir": "work", "cache_dir": cache, "execution_job_configs": [job]}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    run("config.yaml")

    told = [json.loads(line) for line in Path("work/metrics.jsonl").read_text().splitlines()]
    for name, count in (("loss", 3), ("validation_loss", 3)):
        two = [each["value"] for each in told if each["name"] == f"train.{name}"]
        assert two == pytest.approx(list(one.values(name).values()), abs=1e-5)
        assert len(two) == count
    assert json.loads(Path("together/training.json").read_text())["workers"] == 2
    assert len(list(Path(cache, "latents").glob("*.safetensors"))) == 3
    assert len(list(Path(cache, "text_embeddings").glob("*.safetensors"))) == 7
    samples = sorted(path.relative_to("together/samples") for path in Path("together/samples").glob("*/*.mp4"))
    assert [str(path) for path in samples] == [f"step-{step}/{name}-0.mp4" for step in (2, 3) for name in "abc"]
    assert [each["value"] for each in told if each["name"] == "train.failed_samples"] == [0, 0]
    assert sorted(path.name for path in Path("together").glob("*.safetensors")) == [
        "checkpoint-2.safetensors",
        "checkpoint-3.safetensors",
    ]
