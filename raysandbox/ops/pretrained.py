"""Networks from a folder or the Hugging Face hub, ready to look at pictures."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raysandbox.core.component import FetchedLater
from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.core.memory import batches_that_fit
from raysandbox.core.names import pinned

__all__ = [
    "Network",
    "PictureScorer",
    "Source",
    "hub_commit",
    "load_classifier",
    "load_model",
    "load_network",
    "load_part",
    "missing_weights_of",
    "transformers_package",
    "warn_unpinned",
]

_WEIGHTS = (".safetensors", ".bin")  # the better one first
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.py")
_HUB_TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A model to load, and how to use it.

    Attributes:
        key: what messages call the setting, "video_nsfw_filter: hf_nsfw_model".
        name: folder, or id on the Hugging Face hub, with a commit after "@" where it is pinned to one.
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
            JobFailed: the memory does not hold one picture.
        """
        import torch

        def seen(some: Sequence[Any]) -> np.ndarray:
            arrays = [np.asarray(picture) for picture in some]
            pixels = self.processor(images=arrays, return_tensors="pt")["pixel_values"].to(self.device)
            return function(pixels).float().cpu().numpy()

        with torch.inference_mode():
            refusal = "the memory does not hold the model and one picture: use a GPU with more, or a smaller model"
            results = [found for _, found in batches_that_fit(pictures, self.batch_size, seen, lambda _: refusal)]
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
    model = load_model(source, kind).to(source.device)
    return Network(model, processor, source.device, source.batch_size)


def load_model(source: Source, kind: Any, **options: Any) -> Any:
    """A model with all of its weights, for evaluation; transformers would make up those that are missing.

    Args:
        source: what to load.
        kind: a class of transformers.
        options: for `from_pretrained`.

    Raises:
        UserError: it cannot be had, or lacks weights that its class needs.
    """
    model, found = load_part(source, kind, weights=True, output_loading_info=True, **options)
    if found["missing_keys"]:
        shown = ", ".join(sorted(found["missing_keys"])[:3])
        raise UserError(f"{source.key}: '{source.name}' is no {kind.__name__}: it has no weights for {shown}")
    return model.eval().requires_grad_(False)


def load_part(source: Source, kind: Any, *, weights: bool = False, **options: Any) -> Any:
    """What `kind.from_pretrained` makes of a folder or hub id.

    Args:
        source: what to load.
        kind: a class of transformers.
        weights: whether it needs the weights, which are not fetched otherwise.
        options: for `from_pretrained`.

    Raises:
        UserError: it is not there, cannot be fetched, or is something else.
    """
    folder = _folder(source, weights)
    trust = source.trust_remote_code
    if trust:
        warn_unpinned(source.key, source.name, Path(folder).name)
    code = Path(folder, "custom_generate", "generate.py")
    if code.exists() and not trust:  # transformers runs it without asking
        raise UserError(f"{source.key}: {code} would run when the model is loaded: set trust_remote_code to allow it")
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=trust, **options)
    except (OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{source.key}: '{source.name}' is no {kind.__name__}: {_reason(error)}") from error


def _folder(source: Source, weights: bool) -> str:
    """Where a model's files are; fetched from the hub, once, when they are not on this machine.

    transformers would try for minutes where there is no network, and compare with the hub at every start.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    key, name, path = source.key, source.name, Path(source.name).expanduser()
    if path.exists():
        return str(path)
    if _is_path(name):
        raise UserError(f"{key}: there is no folder {name} (correct the path, or give an id of the Hugging Face hub)")
    try:
        name, commit = pinned(name)
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = snapshot_download(name, revision=commit, local_files_only=True)
            if not weights or any(file.suffix in _WEIGHTS for file in Path(folder).iterdir()):
                return folder
        files = HfApi().model_info(name, revision=commit, timeout=_HUB_TIMEOUT_S).siblings or []
        there = {Path(file.rfilename).suffix for file in files}
        best = [f"*{suffix}" for suffix in _WEIGHTS if weights and suffix in there][:1]
        return snapshot_download(
            name, revision=commit, allow_patterns=[*_SMALL_FILES, *best], etag_timeout=_HUB_TIMEOUT_S
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{key}: the model '{name}' is not on this machine and cannot be fetched from the Hugging Face hub: "
            f"{_reason(error)} (correct the name; or run `hf download {name}` where there is a network, and give the "
            f"path of the folder)"
        ) from error


def missing_weights_of(name: object) -> FetchedLater | None:
    """What becomes of a model that is not on this machine; None when it is, or when it is a path."""
    if not isinstance(name, str) or _is_path(name) or Path(name).exists():
        return None
    if any((_in_hub_cache(name) / "snapshots").glob(f"{pinned(name)[1] or '*'}/config.json")):
        return None
    return FetchedLater(
        f"the model '{name}' is not on this machine: it is fetched from the Hugging Face hub when first used"
    )


def hub_commit(name: str) -> str | None:
    """Which state of a hub's model is on this machine and is loaded by its id; None when it is not there."""
    commit = pinned(name)[1]
    if commit is not None:
        return commit if (_in_hub_cache(name) / "snapshots" / commit).is_dir() else None
    try:
        return (_in_hub_cache(name) / "refs" / "main").read_text().strip() or None
    except (OSError, ValueError):
        return None


def _in_hub_cache(name: str) -> Path:
    cache = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub"
    return Path(cache).expanduser() / f"models--{pinned(name)[0].replace('/', '--')}"


def warn_unpinned(key: str, name: str, commit: str | None) -> None:
    """Says which commit's code runs, where a configuration trusts whatever a hub's id stands for.

    Args:
        key: what messages call the setting.
        name: the model.
        commit: what its id stands for now; None where nobody knows yet.
    """
    if Path(name).expanduser().exists() or pinned(name)[1]:
        return
    known = f"now commit {commit}" if commit else "whatever commit is its newest"
    logger.warning(
        "%s: trust_remote_code runs the code of '%s', %s; another day it may be other code: pin it as %s@%s",
        *(key, name, known, name, commit or "COMMIT"),
    )


def transformers_package(purpose: str = "An operator with a model") -> Any:
    """The package transformers, with torch.

    Args:
        purpose: what needs it, for the message.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        importlib.import_module("torch")
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "models", purpose) from error


def _reason(error: Exception) -> str:
    """The first sentence of a message, shortened."""
    return textwrap.shorten(str(error).split(". ", 1)[0], 200)


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~"))
