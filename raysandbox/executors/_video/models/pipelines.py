"""Text-to-video pipelines of diffusers: loading them, whole or in parts."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import logging
import pickle
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.executors._video.models.calls import check_pipeline, generate
from raysandbox.executors._video.models.families import Family, family_of
from raysandbox.executors._video.models.layout import (
    Layout,
    PipelineSource,
    check_whole,
    fetch,
    model_digest,
    read_layout,
    reason,
)
from raysandbox.executors._video.models.lora import load_lora
from raysandbox.executors._video.models.lora_formats import some
from raysandbox.executors._video.models.prompts_encoding import encode_prompts
from raysandbox.executors._video.options import Dtype, MemoryOptions

__all__ = [
    "PipelineSource",
    "encode_prompts",
    "generate",
    "load_encoders",
    "load_pipeline",
    "load_scheduler",
    "load_transformer",
    "load_vae",
    "model_digest",
    "peak_memory",
    "pipeline_around",
    "torch_dtype",
]

logger = logging.getLogger(__name__)

_TRANSFORMER_KEY = "transformer_path"


def load_pipeline(
    source: PipelineSource,
    device: str,
    memory: MemoryOptions,
    *,
    encoders: bool = True,
    lora: tuple[Path, float] | None = None,
) -> Any:
    """A pipeline, ready to generate: for evaluation, without gradients, silent.

    Args:
        source: which weights.
        device: "cuda" or "cpu".
        memory: dtype, offload, tiling and the like.
        encoders: whether it gets its text encoders and tokenizers; without them it needs encoded prompts.
        lora: file and weight of a LoRA for the transformer.

    Raises:
        UserError: the model cannot be had, is damaged, or generates no videos from text; the LoRA is not understood
            or of another model.
        MissingExtraError: a package is not installed.
    """
    layout = _whole_layout(source)
    check_pipeline(_pipeline_class(layout, source), source.key)
    pipe, family = _pipeline(layout, source, memory.dtype, set(layout.parts) - set(() if encoders else layout.encoders))
    if lora is not None:
        load_lora(pipe.transformer, *lora)
        if getattr(pipe, "transformer_2", None) is not None:
            logger.warning("lora_path: %s has two transformers; the LoRA changes the first alone", family.name)
    _speed_up(pipe, family, memory)
    _place(pipe, device, memory)
    return pipe


def load_encoders(source: PipelineSource, device: str, memory: MemoryOptions) -> Any:
    """A pipeline that holds tokenizers and text encoders alone, to encode prompts.

    Raises:
        UserError: the model cannot be had, or is damaged.
    """
    layout = _whole_layout(source)
    pipe, _ = _pipeline(layout, source, memory.dtype, set(layout.encoders))
    _place(pipe, device, memory)
    return pipe


def pipeline_around(transformer: Any, source: PipelineSource, device: str, memory: MemoryOptions) -> Any:
    """A pipeline with a transformer that is there already and without text encoders.

    Args:
        transformer: of the model; it stays as it is.
        source: the other weights.
        device: where the transformer is.
        memory: dtype of the other parts, and tiling; the rest of it would change the transformer.

    Raises:
        UserError: the model cannot be had, or is damaged.
        MissingExtraError: a package is not installed.
    """
    layout = _whole_layout(source)
    others = set(layout.parts) - {"transformer", *layout.encoders}
    pipe, family = _pipeline(layout, source, memory.dtype, others, {"transformer": transformer})
    _speed_up(pipe, family, memory)
    _place(pipe, device, memory)
    return pipe


def load_vae(source: PipelineSource, device: str, dtype: Dtype) -> Any:
    """The autoencoder, on a device, without gradients; in fp32 where its family advises so.

    Raises:
        UserError: the model cannot be had, or is damaged.
    """
    layout = _whole_layout(source)
    return _part(layout, source, "vae", dtype, family_of(source.model, source.key)).to(device)


def load_transformer(source: PipelineSource, device: str, dtype: Dtype) -> Any:
    """The transformer, with the weights of `source.transformer` if given, on a device, without gradients.

    Raises:
        UserError: it cannot be had, or weights do not fit.
    """
    layout = _whole_layout(source)
    return _part(layout, source, "transformer", dtype, Family(layout.pipeline)).to(device)


def load_scheduler(source: PipelineSource) -> Any:
    """The scheduler of the model.

    Raises:
        UserError: the model cannot be had, or is damaged.
    """
    layout = _whole_layout(source)
    return _part(layout, source, "scheduler", "fp32", Family(layout.pipeline))


def peak_memory(device: str) -> int | None:
    """Bytes of GPU memory that torch held at most since the process began; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)


def torch_dtype(dtype: Dtype) -> Any:
    """Torch's name of a dtype."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]


def _whole_layout(source: PipelineSource) -> Layout:
    _require_packages()
    layout = read_layout(fetch(source, weights=True), source.key)
    check_whole(layout, source.key)
    return layout


def _require_packages() -> None:
    for package in ("torch", "transformers", "diffusers"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(error.name or package, "video", "A text-to-video model") from error


def _pipeline_class(layout: Layout, source: PipelineSource) -> Any:
    import diffusers

    kind = getattr(diffusers, layout.pipeline, None)
    if kind is None:
        raise UserError(
            f"{source.key}: diffusers {diffusers.__version__} has no {layout.pipeline}, of which {layout.folder} is "
            f"(install a version that has it, or use another model)"
        )
    return kind


def _pipeline(
    layout: Layout,
    source: PipelineSource,
    dtype: Dtype,
    wanted: Collection[str],
    given: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Any, Family]:
    """The pipeline with the parts that are wanted or given, and the settings of the model's index."""
    kind, family = _pipeline_class(layout, source), family_of(source.model, source.key)
    parts = {name: given.get(name) for name in layout.parts}
    parts |= {name: _part(layout, source, name, dtype, family) for name in layout.parts if name in wanted}
    known = inspect.signature(kind.__init__).parameters
    settings = {name: value for name, value in layout.settings.items() if name in known}
    try:
        pipe = kind(**parts, **settings)
    except ImportError as error:
        raise MissingExtraError(error.name or "a package", "video", f"{layout.pipeline}: {reason(error)};") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{source.key}: {layout.folder} cannot be loaded: {reason(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe, family


def _part(layout: Layout, source: PipelineSource, name: str, dtype: Dtype, family: Family) -> Any:
    """One part of a pipeline, on the CPU; networks for evaluation and with all of their weights.

    Raises:
        UserError: it cannot be loaded, or has not the weights that its class needs.
    """
    if name not in layout.parts:
        raise UserError(f"{source.key}: the model {layout.folder} ({layout.pipeline}) has no {name}")
    kind = _class_of(layout, source, name)
    folder = layout.folder / name
    if name == "vae" and family.exact_autoencoder:
        dtype = "fp32"
    if not hasattr(kind, "state_dict"):
        return _from_pretrained(kind, folder, source.key)
    if not source.transformer or name != "transformer":
        return _network(kind, folder, source.key, layout.parts[name][0], dtype)
    other = Path(source.transformer).expanduser()
    if other.is_dir():
        other = _weights_folder(other)
        _check_class(kind, other)
        return _network(kind, other, _TRANSFORMER_KEY, "diffusers", dtype)
    _check_weights_fit(kind, folder, other)
    with _as_folder(folder, other) as temporary:
        return _network(kind, temporary, _TRANSFORMER_KEY, "diffusers", dtype)


def _network(kind: Any, folder: Path, key: str, library: str, dtype: Dtype) -> Any:
    """A network with all of its weights, for evaluation, without gradients."""
    options = {"dtype" if library == "transformers" else "torch_dtype": torch_dtype(dtype)}
    network, found = _from_pretrained(kind, folder, key, **options, output_loading_info=True)
    if found["missing_keys"]:
        raise UserError(f"{key}: {folder} is no {kind.__name__}: it lacks weights for {some(found['missing_keys'])}")
    if found["unexpected_keys"]:
        unused = some(found["unexpected_keys"])
        logger.warning("%s: %s has weights that %s does not use: %s", key, folder, kind.__name__, unused)
    return network.eval().requires_grad_(False)


def _check_class(kind: Any, folder: Path) -> None:
    """Refuses the folder of a network of another class: the errors of loading it would not say so."""
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{_TRANSFORMER_KEY}: {folder / 'config.json'} cannot be read: {error}") from error
    if name != kind.__name__:
        raise UserError(f"{_TRANSFORMER_KEY}: {folder} holds {name}, and the model needs {kind.__name__}")


def _from_pretrained(kind: Any, folder: Path, key: str, **options: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except ImportError as error:
        raise MissingExtraError(error.name or "a package", "video", f"{kind.__name__}: {reason(error)};") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{key}: {folder} cannot be loaded as {kind.__name__}: {reason(error)}") from error


def _check_weights_fit(kind: Any, folder: Path, file: Path) -> None:
    """Refuses a file whose weights are not those of a network of the folder's configuration.

    Raises:
        UserError: there is no such file, it is of another format, or its weights do not fit.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not file.exists():
        raise UserError(f"{_TRANSFORMER_KEY}: there is nothing at {file} (correct the path)")
    if file.suffix != ".safetensors":
        raise UserError(f"{_TRANSFORMER_KEY}: {file} is no .safetensors file (convert it; others may run code)")
    try:
        with safe_open(file, "pt") as content:
            shapes = {name: list(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{_TRANSFORMER_KEY}: {file} cannot be read: {reason(error)} (copy it again)") from error
    with torch.device("meta"):
        network = kind.from_config(kind.load_config(str(folder), local_files_only=True))
    wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    found = [
        ("missing", [name for name in wanted if name not in shapes]),
        ("unknown", [name for name in shapes if name not in wanted]),
        ("of another shape", [name for name in wanted if shapes.get(name, wanted[name]) != wanted[name]]),
    ]
    what = "; ".join(f"{len(names)} {text} ({some(names)})" for text, names in found if names)
    if what:
        raise UserError(f"{_TRANSFORMER_KEY}: the weights of {file} do not fit {folder}: {what}, of {len(wanted)}")


@contextlib.contextmanager
def _as_folder(folder: Path, file: Path) -> Iterator[Path]:
    """A folder with the configuration of one network and the weights of a file, for `from_pretrained`."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(folder / "config.json", name)
        Path(name, "diffusion_pytorch_model.safetensors").symlink_to(file.absolute())
        yield Path(name)


def _weights_folder(folder: Path) -> Path:
    """The folder of a transformer: the one given, or its subfolder where a whole model was given."""
    for candidate in (folder, folder / "transformer"):
        if (candidate / "config.json").exists():
            return candidate
    raise UserError(
        f"{_TRANSFORMER_KEY}: {folder} has no config.json (give a transformer's folder in diffusers' layout, or a "
        f".safetensors file)"
    )


def _class_of(layout: Layout, source: PipelineSource, name: str) -> Any:
    library, class_name = layout.parts[name]
    package = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    try:
        return getattr(importlib.import_module(package), class_name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{source.key}: {layout.folder} needs {class_name} of {library} for its {name}, which is not installed "
            f"here: {reason(error)}"
        ) from error


def _speed_up(pipe: Any, family: Family, memory: MemoryOptions) -> None:
    """Tiling, slicing, attention and compilation, where the pipeline has them."""
    vae = getattr(pipe, "vae", None)
    if memory.vae_tiling:
        _call_if_there(vae, "enable_tiling", "vae_tiling", family)
    if memory.vae_slicing and not family.safe_slicing:
        logger.warning("vae_slicing is left out: it fails in %s; videos are decoded one by one anyway", family.name)
    elif memory.vae_slicing:
        _call_if_there(vae, "enable_slicing", "vae_slicing", family)
    if memory.attention_backend is not None:
        try:
            pipe.transformer.set_attention_backend(memory.attention_backend)
        except (ValueError, RuntimeError, ImportError, AttributeError) as error:
            raise UserError(f"attention_backend: '{memory.attention_backend}' cannot be used: {error}") from error
    if memory.compile:
        pipe.transformer.compile()


def _call_if_there(part: Any, method: str, key: str, family: Family) -> None:
    if hasattr(part, method):
        getattr(part, method)()
    else:
        logger.warning("%s has no effect: the autoencoder of %s cannot do it", key, family.name)


def _place(pipe: Any, device: str, memory: MemoryOptions) -> None:
    if memory.offload != "none" and not device.startswith("cuda"):
        logger.warning("offload: %s has no effect without a GPU", memory.offload)
    elif memory.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
        return
    elif memory.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
        return
    if device != "cpu":  # where the parts are; diffusers would warn of fp16, which works
        pipe.to(device)
