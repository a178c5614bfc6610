import json

import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.executors.base import TRAINERS
from raysandbox.executors.train.fake import FakeTrainer


def trainer(train_file, tmp_path, **settings) -> FakeTrainer:
    return FakeTrainer(train_dataset=str(train_file), work_dir=str(tmp_path / "model"), **settings)


def test_it_is_found_by_its_name():
    assert TRAINERS.get("fake") is FakeTrainer


def test_the_loss_falls_and_a_model_appears(train_file, tmp_path, session):
    assert trainer(train_file, tmp_path, steps=5).train(session) == str(tmp_path / "model")
    steps, losses = zip(*session.series("loss"), strict=True)
    assert steps == (1, 2, 3, 4, 5)
    assert list(losses) == sorted(losses, reverse=True)
    assert json.loads((tmp_path / "model" / "model.json").read_text())["loss"] == losses[-1]


def test_the_seed_decides_the_losses(train_file, tmp_path, session):
    for seed in (1, 1, 2):
        trainer(train_file, tmp_path, steps=3, seed=seed).train(session)
    losses = [loss for _, loss in session.series("loss")]
    assert losses[:3] == losses[3:6]
    assert losses[:3] != losses[6:]


def test_it_fails_where_it_is_told_to_and_leaves_no_model(train_file, tmp_path, session):
    with pytest.raises(JobFailed, match="fails at step 3"):
        trainer(train_file, tmp_path, steps=5, fail_at=3).train(session)
    assert [step for step, _ in session.series("loss")] == [1, 2]
    assert not (tmp_path / "model").exists()


def test_missing_data_is_an_error(tmp_path, session):
    with pytest.raises(JobFailed, match=r"train_dataset: .*gone\.jsonl does not exist"):
        trainer(tmp_path / "gone.jsonl", tmp_path).train(session)
