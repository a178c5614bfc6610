"""A GPU whose memory is full, simulated: smaller batches with the same results, or a failure that says what helps.

Text inference, generation of videos and external trainings have theirs beside their own tests; batching as such, and
what a training says, are in `tests/core/test_memory.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raysandbox.core.errors import JobFailed
from raysandbox.executors._causal_lm import LanguageModel
from raysandbox.executors._video.training.latents import ClipFormat, LatentScorer
from raysandbox.ops.pretrained import Network
from tests.executors.conftest import texts as words
from tests.executors.tiny_language_models import llama

torch = pytest.importorskip("torch")


def full(*args: Any, **more: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def that_holds(function: Callable[[Sequence[Any]], Any], most: int) -> Callable[[Sequence[Any]], Any]:
    """A function on a GPU that holds so many items."""
    return lambda items: function(items) if len(items) <= most else full()


def network(batch_size: int) -> Network:
    def processor(images: list[np.ndarray], return_tensors: str) -> dict[str, Any]:
        return {"pixel_values": torch.tensor(np.stack(images), dtype=torch.float32)}

    return Network(None, processor, "cpu", batch_size)


def test_operators_with_models(caplog: pytest.LogCaptureFixture) -> None:
    pictures = [np.full((2, 2, 3), number, np.uint8) for number in range(7)]

    def means(pixels: Any) -> Any:
        return pixels.mean(dim=(1, 2, 3))

    with caplog.at_level(logging.WARNING):
        assert network(5).apply(pictures, that_holds(means, 2)).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert "the memory does not hold 5 items at once" in caplog.text
    with pytest.raises(JobFailed, match="does not hold the model and one picture: use a GPU with more"):
        network(5).apply(pictures, full)


def test_perplexity_and_loss_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = llama(tmp_path / "llama", words(18))
    loaded = LanguageModel(folder, "huggingface", max_length=None, stride=None, batch_size=4).load("cpu")
    some = words(6)
    wanted = [loss.total for loss in loaded.losses(some)]
    real = loaded._batch_losses
    monkeypatch.setattr(type(loaded), "_batch_losses", lambda self, batch: that_holds(real, 1)(batch))
    assert [loss.total for loss in loaded.losses(some)] == pytest.approx(wanted)
    monkeypatch.setattr(type(loaded), "_batch_losses", full)
    with pytest.raises(JobFailed, match=r"does not hold the model and one text of .* tokens: set a smaller max_length"):
        loaded.losses(some)


def test_latents_of_clips() -> None:
    scorer = LatentScorer(None, "easyanimate", ClipFormat(8, 8, 1, 1, 0), "fp32", False)  # type: ignore[arg-type]
    vae = SimpleNamespace(encode=full, device="cpu", dtype=torch.float32)
    with pytest.raises(JobFailed, match="does not hold the autoencoder and one clip: set vae_tiling, or a lower size"):
        scorer._encoded(vae, np.zeros((1, 8, 8, 3), np.uint8))
