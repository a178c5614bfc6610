"""Model folders in diffusers' layout: where they are, what they hold, whether they are whole. No torch here."""

from __future__ import annotations

import importlib
import json
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.component import FetchedLater
from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.core.keys import DigestMemo, digest

__all__ = [
    "INDEX",
    "Layout",
    "PipelineSource",
    "check_whole",
    "fetch",
    "local_folder",
    "missing_weights_of",
    "model_digest",
    "read_layout",
    "reason",
]

INDEX = "model_index.json"

_VAE = "vae/config.json"  # says which sizes fit
_WEIGHTS = (".safetensors", ".bin")
_LIBRARIES = ("diffusers", "transformers")
_NO_WEIGHTS = ("tokenizer", "scheduler", "processor", "feature_extractor", "guider")
_HUB_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class PipelineSource:
    """Which weights make a pipeline; picklable.

    Attributes:
        model: folder in diffusers' layout, or id on the Hugging Face hub.
        transformer: folder or safetensors file with other weights for the transformer.
        key: what messages call the setting of the model.
    """

    model: str
    transformer: str | None = None
    key: str = "model"

    @classmethod
    def located(cls, model: str, transformer: str | None = None) -> PipelineSource:
        """The source as workers find it, whose current directory may be another."""
        folder = Path(model).expanduser()
        other = None if transformer is None else str(Path(transformer).expanduser().absolute())
        return cls(str(folder.absolute()) if folder.exists() else model, other)


@dataclass(frozen=True)
class Layout:
    """What a model's index says.

    Attributes:
        folder: the model's folder.
        pipeline: class of diffusers.
        parts: name of each part → (library, class).
        settings: of the pipeline itself, and None for parts that it goes without.
    """

    folder: Path
    pipeline: str
    parts: Mapping[str, tuple[str, str]]
    settings: Mapping[str, Any]

    @property
    def encoders(self) -> tuple[str, ...]:
        """The parts that only encoding prompts needs."""
        return tuple(name for name in self.parts if name.startswith(("text_encoder", "tokenizer")))


def local_folder(model: str) -> Path | None:
    """A model's folder, if it is on this machine: the path itself, or the newest snapshot of a hub id."""
    path = Path(model).expanduser()
    if path.exists() or _is_path(model):
        return path if path.exists() else None
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    repository = cache / f"models--{model.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = repository / "snapshots" / commit
    return snapshot if (snapshot / INDEX).exists() else None


def fetch(source: PipelineSource, *, weights: bool) -> Path:
    """A model's folder on this machine; from the hub where it is not here. Nothing local is fetched again.

    Args:
        source: which model.
        weights: whether all of it is needed, not only what says which requests fit.

    Raises:
        UserError: it is not here and cannot be fetched.
    """
    folder = local_folder(source.model)
    if folder is not None and (Path(source.model).expanduser().exists() or _holds(folder, source.key, weights)):
        return folder
    if _is_path(source.model):
        raise UserError(
            f"{source.key}: there is no folder {source.model} (correct the path, or give an id of the Hugging Face hub)"
        )
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "video", "A model of the Hugging Face hub") from error
    try:
        # Asked first, with a time limit: downloads would try for minutes where there is no network.
        HfApi().model_info(source.model, timeout=_HUB_TIMEOUT_S)
        if not weights:
            folder = Path(hf_hub_download(source.model, INDEX, etag_timeout=_HUB_TIMEOUT_S)).parent
            if "vae" in read_layout(folder, source.key).parts:
                hf_hub_download(source.model, _VAE, etag_timeout=_HUB_TIMEOUT_S)
            return folder
        diffusers = importlib.import_module("diffusers")
        return Path(diffusers.DiffusionPipeline.download(source.model))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source.key}: the model '{source.model}' is not on this machine and cannot be fetched from the Hugging "
            f"Face hub: {reason(error)} (correct the name; or run `hf download {source.model}` where there is a "
            f"network, and give the path of the folder)"
        ) from error


def read_layout(folder: Path, key: str = "model") -> Layout:
    """What a model folder's index says.

    Raises:
        UserError: there is no index, it is damaged, or the model brings code of its own.
    """
    index = folder / INDEX
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{key}: {_not_a_model(folder)}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {index} cannot be read: {error} (copy the model again)") from error
    name = content.get("_class_name") if isinstance(content, dict) else None
    if not isinstance(name, str):
        what = "a pipeline of its own code, which is not run here" if name else "no '_class_name'"
        raise UserError(f"{key}: {index} has {what} (use a model of diffusers' own pipelines)")
    parts = {
        part: (str(value[0]), str(value[1]))
        for part, value in content.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)
    }
    for part, (library, _) in parts.items():
        code = folder / part / f"{library}.py"
        if code.exists():  # diffusers runs it without asking
            raise UserError(f"{key}: {code} would run when the model is loaded (remove it, or use another model)")
    settings = {
        key: None if value == [None, None] else value
        for key, value in content.items()
        if key not in parts and not key.startswith("_")
    }
    return Layout(folder, name, parts, settings)


def missing_weights_of(model: object, key: str = "model") -> str | None:
    """What a model lacks on this machine, without importing anything: for `Component.missing_weights`.

    Returns:
        None when it is whole; a `FetchedLater` for an id of the hub that is not here yet; a message for a
        folder that is no model or lacks files.
    """
    if not isinstance(model, str) or not model:
        return None
    folder = local_folder(model)
    if folder is None and not _is_path(model):
        return FetchedLater(
            f"the model '{model}' is not on this machine: it is fetched from the Hugging Face hub when first used"
        )
    if folder is None:
        return None  # a path that is not there is reported as such
    try:
        missing = _missing(read_layout(folder, key))
    except UserError as error:
        return str(error).removeprefix(f"{key}: ")
    return _lacks(folder, missing) if missing else None


def check_whole(layout: Layout, key: str) -> None:
    """Refuses a model folder that lacks files.

    Raises:
        UserError: it names them.
    """
    missing = _missing(layout)
    if missing:
        raise UserError(f"{key}: {_lacks(layout.folder, missing)}")


def model_digest(source: PipelineSource, memo: DigestMemo) -> str:
    """A digest of what a pipeline is made of, by content.

    A folder of the hub's cache is known by its commit. Elsewhere every file counts of the parts that the
    index names; of the model's transformer only the configuration where a file of other weights takes its
    place, and nothing where a folder does, which has its own.

    Raises:
        UserError: the model cannot be had.
    """
    folder = fetch(source, weights=False)
    other = memo.of(Path(source.transformer).expanduser()) if source.transformer else None
    if source.transformer and other is None:
        raise UserError(f"transformer_path: there is nothing at {source.transformer} (correct the path)")
    if folder.parent.name == "snapshots" and not Path(source.model).expanduser().exists():
        return digest([source.model, folder.name, other])
    layout = read_layout(folder, source.key)
    parts = [part for part in sorted(layout.parts) if not (part == "transformer" and other)]
    files = [folder / part for part in parts]
    if source.transformer and Path(source.transformer).expanduser().is_file():
        files.append(folder / "transformer" / "config.json")
    return digest([memo.of(folder / INDEX), other, [[str(file.relative_to(folder)), memo.of(file)] for file in files]])


def reason(error: BaseException) -> str:
    """The first sentence of a message, shortened, on one line."""
    return textwrap.shorten(str(error).split(". ", 1)[0], 300) or type(error).__name__


def _holds(folder: Path, key: str, weights: bool) -> bool:
    """Whether a snapshot of the hub has what is needed (see `fetch`)."""
    layout = read_layout(folder, key)
    return not _missing(layout) if weights else "vae" not in layout.parts or (folder / _VAE).exists()


def _missing(layout: Layout) -> list[str]:
    """Files that a model folder should have, relative to it."""
    missing: list[str] = []
    for part, (library, class_name) in layout.parts.items():
        folder = layout.folder / part
        if not folder.is_dir():
            missing.append(f"{part}/")
        elif library in _LIBRARIES and not part.startswith(_NO_WEIGHTS) and not class_name.endswith("Scheduler"):
            missing += [f"{part}/{name}" for name in _missing_files(folder)]
    return missing


def _missing_files(folder: Path) -> list[str]:
    """Of a network's folder: its configuration, its weights, the pieces that an index of weights names."""
    missing = [] if (folder / "config.json").exists() else ["config.json"]
    names = {file.name for file in folder.iterdir()}
    for index in sorted(name for name in names if name.endswith(".index.json")):
        try:
            pieces: dict[str, Any] = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        except (OSError, ValueError, KeyError, TypeError):
            return [*missing, f"{index} (it is damaged)"]
        absent = sorted(set(pieces.values()) - names)
        if not absent:
            return missing
        missing += absent
    if not any(name.endswith(_WEIGHTS) for name in names):
        missing.append("*.safetensors")
    return missing


def _lacks(folder: Path, missing: list[str]) -> str:
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return f"the model folder {folder} lacks {shown} (copy or download the model again)"


def _not_a_model(folder: Path) -> str:
    what = "is a file" if folder.is_file() else f"has no {INDEX}"
    hint = "give the folder of a model in diffusers' layout; for EasyAnimate the names end with '-diffusers'"
    return f"{folder} {what}: it is no model folder of diffusers ({hint})"


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name.count("/") > 1
