"""Losses in lines of training scripts."""

import math

import pytest

from raysandbox.executors._video.external.losses import LossReader


def read(*lines):
    reports = []
    reader = LossReader(lambda metrics, step=None: reports.append((step, metrics)))
    for line in lines:
        reader.read(line)
    reader.finish()
    return reader, reports


@pytest.mark.parametrize(
    ("line", "step", "metrics"),
    [
        (
            "Steps:  10%|█         | 3/30 [00:01<00:05,  3.2it/s, lr=2e-5, step_loss=0.123]",
            3,
            {"lr": 2e-5, "loss": 0.123},
        ),
        ("step 7 loss=0.5", 7, {"loss": 0.5}),
        ("global_step: 12, train_loss: 1.5e-2, grad_norm: 3", 12, {"loss": 0.015, "grad_norm": 3.0}),
        ("{'loss': 0.25, 'learning_rate': 1e-4}", 1, {"loss": 0.25, "lr": 1e-4}),
        ("loss: .5", 1, {"loss": 0.5}),
    ],
)
def test_lines_with_a_loss(line, step, metrics):
    assert read(line)[1] == [(step, metrics)]


@pytest.mark.parametrize(
    "line", ["gloss=3", "loss=abc", "vae_loss_weight=1", "lr=1e-4", "noloss", "loss=1.2.3", "", "no loss here: 3"]
)
def test_lines_without(line):
    assert read(line)[1] == []


def test_a_step_is_reported_once_with_its_last_loss():
    lines = [f"{step}/9 [00:01<00:05, lr=1, step_loss={loss}]" for step, loss in [(1, 9), (1, 5), (2, 5), (2, 4)]]
    reader, reports = read(*lines)
    assert reports == [(1, {"loss": 5, "lr": 1}), (2, {"loss": 4, "lr": 1})]
    assert (reader.losses, reader.last, reader.step) == (2, 4, 2)


def test_lines_without_steps_are_counted():
    assert [step for step, _ in read("loss=3", "loss=2", "loss=1")[1]] == [1, 2, 3]


def test_a_loss_that_is_no_number():
    reader, reports = read("step 1 loss=nan")
    assert math.isnan(reports[0][1]["loss"])
    assert not reader.is_finite
    assert LossReader(lambda *_: None).is_finite
