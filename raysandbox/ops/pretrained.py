"""Networks from a folder or the Hugging Face hub, ready to look at pictures."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raysandbox.core.errors import JobFailed, MissingExtraError, UserError

__all__ = [
    "Network",
    "PictureScorer",
    "Source",
    "load_classifier",
    "load_network",
    "load_part",
    "missing_weights_of",
    "transformers_package",
]


@dataclass(frozen=True)
class Source:
    """A model to load, and how to use it.

    Attributes:
        key: what messages call the setting, "video_nsfw_filter: hf_nsfw_model".
        name: folder, or id on the Hugging Face hub.
        device: "cpu" or "cuda".
        batch_size: pictures per forward pass.
        trust_remote_code: whether Python code that lies beside the weights may run.
    """

    key: str
    name: str
    device: str
    batch_size: int
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Network:
    """A network, what prepares its pictures, and how many it sees at once.

    Attributes:
        model: the torch module, in evaluation mode, on `device`.
        processor: the image processor of transformers that belongs to it.
        device: "cpu" or "cuda".
        batch_size: pictures per forward pass.
    """

    model: Any
    processor: Any
    device: str
    batch_size: int

    def apply(self, pictures: Sequence[Any], function: Callable[[Any], Any]) -> np.ndarray:
        """What `function` makes of pictures.

        Args:
            pictures: PIL images or uint8 arrays of shape (H, W, 3).
            function: from pixel values, a tensor of shape (n, 3, h, w), to a tensor of shape (n, …).

        Returns:
            float32 array, one entry per picture.

        Raises:
            JobFailed: the GPU cannot hold a batch.
        """
        import torch

        results = []
        with torch.inference_mode():
            for start in range(0, len(pictures), self.batch_size):
                arrays = [np.asarray(picture) for picture in pictures[start : start + self.batch_size]]
                pixels = self.processor(images=arrays, return_tensors="pt")["pixel_values"].to(self.device)
                try:
                    results.append(function(pixels).float().cpu().numpy())
                except torch.OutOfMemoryError as error:
                    raise JobFailed(
                        f"the GPU has no memory for {len(arrays)} pictures at once: set a smaller batch_size"
                    ) from error
        return np.concatenate(results) if results else np.zeros(0, np.float32)


@dataclass(frozen=True)
class PictureScorer:
    """A network that gives every picture a number.

    Attributes:
        network: the network.
        score: from pixel values, a tensor of shape (n, 3, h, w), to scores, a tensor of shape (n,).
    """

    network: Network
    score: Callable[[Any], Any]

    def scores(self, pictures: Sequence[Any]) -> np.ndarray:
        """The score (float32) of every picture; pictures as in `Network.apply`."""
        return self.network.apply(pictures, self.score)


def load_classifier(source: Source) -> PictureScorer:
    """An image classifier, as a scorer by the probability of its second class.

    Raises:
        UserError: the model cannot be had, or is no image classifier.
        MissingExtraError: transformers or torch is not installed.
    """
    network = load_network(source, transformers_package().AutoModelForImageClassification)
    return PictureScorer(network, lambda pixels: network.model(pixel_values=pixels).logits.softmax(-1)[:, 1])


def load_network(source: Source, kind: Any) -> Network:
    """A network of a class of transformers, and its image processor.

    Safetensors are preferred; other weights are read without running code from them.

    Raises:
        UserError: the model cannot be had, or lacks weights that its class needs.
    """
    # The slow processors work with PIL: the published thresholds were found with them, and their
    # results do not depend on whether torchvision is installed.
    processor = load_part(source, transformers_package().AutoImageProcessor, use_fast=False)
    model, found = load_part(source, kind, output_loading_info=True)
    if found["missing_keys"]:
        shown = ", ".join(sorted(found["missing_keys"])[:3])
        raise UserError(f"{source.key}: '{source.name}' is no {kind.__name__}: it has no weights for {shown}")
    return Network(model.eval().requires_grad_(False).to(source.device), processor, source.device, source.batch_size)


def load_part(source: Source, kind: Any, **options: Any) -> Any:
    """What `kind.from_pretrained` makes of a folder or hub id.

    Raises:
        UserError: it is not there, cannot be fetched, or is something else.
    """
    key, name, path = source.key, source.name, Path(source.name).expanduser()
    if _is_path(name) and not path.exists():
        raise UserError(f"{key}: there is no folder {name} (correct the path, or give an id of the Hugging Face hub)")
    try:
        where = str(path) if path.exists() else name
        return kind.from_pretrained(where, trust_remote_code=source.trust_remote_code, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(
            f"{key}: cannot load '{name}': {reason} (without a network: run `hf download {name}` where there "
            f"is one, copy the folder here, and give its path)"
        ) from error


def missing_weights_of(name: str) -> str | None:
    """What to do about a model that is not on this machine; None when it is, or when it is a path."""
    if _is_path(name) or Path(name).exists():
        return None
    cache = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub"
    if any((Path(cache).expanduser() / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/config.json")):
        return None
    return f"the model '{name}' is not on this machine: it is fetched from the Hugging Face hub when first used"


def transformers_package() -> Any:
    """The package transformers, with torch.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        importlib.import_module("torch")
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "models", "An operator with a model") from error


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~"))
