"""Batches that are too large for the memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.core.errors import JobFailed
from raysandbox.core.memory import batches_that_fit, memory_failures, that_fits
from raysandbox.executors.train.fake import FakeTrainer


def gpu_full(text: str) -> Exception:
    import torch

    return torch.OutOfMemoryError(text)


def refused(batch: Sequence[int]) -> str:
    return f"{batch[0]} does not fit"


@given(st.integers(0, 40), st.integers(1, 17), st.integers(1, 9))
def test_all_items_come_once_and_in_order_whatever_fits(number: int, size: int, fits: int) -> None:
    calls: list[int] = []

    def do(batch: Sequence[int]) -> list[int]:
        calls.append(len(batch))
        if len(batch) > fits:
            raise gpu_full("CUDA out of memory. Tried to allocate")
        return [2 * item for item in batch]

    found = list(batches_that_fit(range(number), size, do, refused))
    assert [item for _, results in found for item in results] == [2 * item for item in range(number)]
    assert all(len(batch) <= fits for batch, _ in found)
    assert sum(call > fits for call in calls) <= 5  # halved, and not tried large again


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        gpu_full("CUDA out of memory.\nmore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"),
    ],
)
def test_one_item_that_does_not_fit_is_tried_twice_and_named(error: Exception) -> None:
    calls: list[Sequence[int]] = []

    def do(batch: Sequence[int]) -> None:
        calls.append(batch)
        if 3 in batch:
            raise error

    with pytest.raises(JobFailed, match="3 does not fit") as raised:
        list(batches_that_fit(range(5), 4, do, refused))
    assert "\n" not in str(raised.value)
    assert [list(call) for call in calls if 3 in call] == [[0, 1, 2, 3], [2, 3], [3], [3]]


def test_other_errors_go_through() -> None:
    with pytest.raises(ZeroDivisionError):
        list(batches_that_fit([0], 1, lambda batch: 1 // batch[0], refused))


def test_smaller_batches_are_said(caplog: pytest.LogCaptureFixture) -> None:
    def do(batch: Sequence[int]) -> None:
        if len(batch) > 2:
            raise MemoryError

    with caplog.at_level(logging.WARNING):
        list(batches_that_fit(range(4), 4, do, refused))
    assert "does not hold 4 items at once: going on with 2" in caplog.text


def test_a_second_try_after_memory_was_given_back() -> None:
    left = [True, False]

    def do() -> str:
        if left.pop(0):
            raise gpu_full("CUDA out of memory")
        return "done"

    assert that_fits(do, "no room") == "done"


def test_a_training_names_the_keys_that_need_less_memory() -> None:
    from raysandbox.executors.train.diffusers import DiffusersTrainer

    trainer = DiffusersTrainer(**DiffusersTrainer.example)

    def full() -> None:
        with memory_failures(trainer):
            raise gpu_full("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(
        JobFailed, match=r"diffusers: the memory is not enough: CUDA out of memory.*lower batch_size"
    ) as raised:
        full()
    assert "larger gradient_accumulation_steps" in str(raised.value)


def test_a_trainer_without_batches_gets_another_advice() -> None:
    trainer = FakeTrainer(**FakeTrainer.example)

    def full() -> None:
        with memory_failures(trainer):
            raise MemoryError

    with pytest.raises(JobFailed, match="lower the batch size"):
        full()
