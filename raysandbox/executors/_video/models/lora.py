"""LoRA of a transformer: put in, trained, saved, loaded; the base weights stay as they are.

Layers of plain peft are put in place of the modules (`inject_adapter_in_model`), never merged: some
transformers of diffusers, EasyAnimate's among them, have not the methods that its own loading needs, and
adding and subtracting a LoRA would leave rounding errors in the weights. One way serves all families, for
training and generation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import MissingExtraError, UserError, did_you_mean
from raysandbox.core.files import atomic_path
from raysandbox.executors._video.models.lora_formats import LORA_METADATA, LoraPair, read_lora, some
from raysandbox.executors.train._staging import MARKER

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["add_lora", "find_lora", "load_lora", "lora_state", "remove_lora", "save_lora"]

_ADAPTER = "default"
_PREFIX = "transformer."
_CHECKPOINT = re.compile(r"^checkpoint-(\d+)\.safetensors$")
_OTHER_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # of diffusers, of peft


def find_lora(path: str, key: str = "lora_path") -> Path:
    """The file of a LoRA: the path itself, or a folder's newest checkpoint.

    That is the one that the folder's training says it ended with, since files of others may stand beside it;
    else the `checkpoint-*.safetensors` of the highest step.

    Raises:
        UserError: there is none.
    """
    found = Path(path).expanduser()
    if found.is_file():
        return found
    if not found.is_dir():
        raise UserError(f"{key}: there is nothing at {path} (correct the path, or train the LoRA first)")
    last = _last_checkpoint(found)
    if last is not None:
        return last
    steps = {int(match[1]): file for file in found.iterdir() if (match := _CHECKPOINT.match(file.name))}
    if steps:
        return steps[max(steps)]
    for name in _OTHER_NAMES:
        if (found / name).is_file():
            return found / name
    raise UserError(f"{key}: {path} has no checkpoint-*.safetensors (give the file of the LoRA)")


def _last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a finished training names in its marker; None if there is none."""
    try:
        name = json.loads((folder / MARKER).read_text(encoding="utf-8"))["checkpoint"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # no training's folder, or that of another trainer
    named = isinstance(name, str) and _CHECKPOINT.match(name) and (folder / name).is_file()
    return folder / name if named else None


def load_lora(transformer: Any, file: Path, weight: float, key: str = "lora_path") -> None:
    """Puts a LoRA into a transformer, in place of the one that is there, which stays if the file is refused.

    Args:
        transformer: a torch module; before its weights are spread over devices (`offload: sequential`).
        file: as `read_lora` reads it.
        weight: share of the LoRA; its alpha counts besides.
        key: what messages call the setting.

    Raises:
        UserError: the file is not understood, or is of another model.
        MissingExtraError: peft is not installed.
    """
    modules = dict(_modules(transformer))
    pairs = read_lora(file, modules, key)
    _check_fit(pairs, modules, file, key)
    remove_lora(transformer)
    layers = _inject(transformer, {name: (pair.rank, pair.alpha) for name, pair in pairs.items()}, key)
    for name, pair in pairs.items():
        layer, base = layers[name], modules[name].weight
        for half, tensor in ((layer.lora_A, pair.down), (layer.lora_B, pair.up)):
            # A copy: tensors of a file lie at odd addresses, for which sums are rounded in another order.
            half[_ADAPTER].weight.data = tensor.to(device=base.device, dtype=base.dtype, copy=True).contiguous()
        layer.scaling[_ADAPTER] = pair.alpha / pair.rank * weight
    transformer.requires_grad_(False)


def add_lora(transformer: Any, rank: int, alpha: float, targets: Sequence[str] | None, seed: int) -> list[Any]:
    """Puts a LoRA to train into a transformer, which changes nothing yet; all other weights are frozen.

    Its weights are fp32 whatever the transformer's dtype. `down` is drawn as peft draws it (Kaiming, uniform)
    but from a generator of its own, in the order of the modules' names; `up` is zero.

    Args:
        transformer: a torch module.
        rank: of every module's change.
        alpha: the change counts `alpha / rank`.
        targets: names of linear modules, whole or their last parts; all of them when None.
        seed: of the generator.

    Returns:
        the parameters to train.

    Raises:
        UserError: a target is no linear module of the transformer.
        MissingExtraError: peft is not installed.
    """
    import torch

    remove_lora(transformer)
    linear = [name for name, module in _modules(transformer) if isinstance(module, torch.nn.Linear)]
    names = linear if targets is None else _matching(linear, targets)
    layers = _inject(transformer, dict.fromkeys(names, (rank, alpha)), "targets")
    transformer.requires_grad_(False)
    generator = torch.Generator("cpu").manual_seed(seed)
    parameters = []
    for name in sorted(names):
        down, up = layers[name].lora_A[_ADAPTER].weight, layers[name].lora_B[_ADAPTER].weight
        drawn = torch.empty(down.shape)
        torch.nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=generator)
        down.data = drawn.to(down.device)
        up.data = torch.zeros(up.shape, device=up.device)
        parameters += [down.requires_grad_(True), up.requires_grad_(True)]
    return parameters


def remove_lora(transformer: Any) -> None:
    """Takes the LoRA out of a transformer: its modules are the ones that were there before."""
    for name, layer in list(_layers(transformer)):
        parent, _, child = name.rpartition(".")
        setattr(transformer.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(transformer, "peft_config"):
        del transformer.peft_config


def lora_state(transformer: Any) -> dict[str, Tensor]:
    """The weights of a transformer's LoRA by peft's keys, `transformer.<module>.lora_A.weight`: copies on the CPU."""
    return {name: parameter.detach().to("cpu", copy=True).contiguous() for name, parameter in _parameters(transformer)}


def save_lora(file: Path, state: Mapping[str, Tensor], *, rank: int, alpha: float, about: Mapping[str, str]) -> None:
    """Writes a LoRA that this program, peft and diffusers read; equal weights give equal bytes.

    Args:
        file: .safetensors file; it appears whole or not at all, with the mode that the umask gives.
        state: from `lora_state`.
        rank: of its modules.
        alpha: see `add_lora`.
        about: what else the file says of itself, e.g. the model's name.
    """
    from safetensors.torch import save

    settings = {"r": rank, "lora_alpha": alpha}
    # diffusers' loader takes them for granted where there are any settings.
    names = sorted({name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in state})
    needed = {**settings, "rank_pattern": {}, "alpha_pattern": {}, "target_modules": names}
    diffusers = {f"{_PREFIX}{name}": value for name, value in needed.items()}
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(diffusers, sort_keys=True),
        LORA_METADATA: json.dumps({**settings, "about": dict(about)}, sort_keys=True),
    }
    content = _sorted_header(save(dict(state), metadata))
    with atomic_path(file) as temporary:
        temporary.write_bytes(content)


def _sorted_header(content: bytes) -> bytes:
    """A safetensors file with its header in order: the library writes the metadata in any.

    The format: 8 bytes of the header's length, little-endian, the header in JSON, padded to 8 bytes, the data.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _modules(transformer: Any) -> Iterator[tuple[str, Any]]:
    """The transformer's own modules that have a weight, without the LoRA: name, module."""
    kind = _layer_class()
    for name, module in transformer.named_modules():
        if isinstance(module, kind):
            yield name, module.get_base_layer()
        elif hasattr(module, "weight") and not re.search(r"\.(base_layer|lora_[AB])\b", name):
            yield name, module


def _layers(transformer: Any) -> Iterator[tuple[str, Any]]:
    kind = _layer_class()
    return ((name, module) for name, module in transformer.named_modules() if isinstance(module, kind))


def _layer_class() -> type:
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise MissingExtraError("peft", "video", "A LoRA") from error
    return LoraLayer


def _parameters(transformer: Any) -> Iterator[tuple[str, Any]]:
    for name, layer in _layers(transformer):
        yield f"{_PREFIX}{name}.lora_A.weight", layer.lora_A[_ADAPTER].weight
        yield f"{_PREFIX}{name}.lora_B.weight", layer.lora_B[_ADAPTER].weight


def _inject(transformer: Any, modules: Mapping[str, tuple[int, float]], key: str) -> dict[str, Any]:
    """Puts LoRA layers in place of modules, given with rank and alpha; their weights are not set yet."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    first = next(iter(modules.values()))[0]
    config = LoraConfig(
        r=first,
        lora_alpha=first,
        target_modules=sorted(modules),
        init_lora_weights=False,
        rank_pattern={f"^{re.escape(name)}": rank for name, (rank, _) in modules.items() if rank != first},
    )
    # By the keys of a state, names are taken whole; as target_modules alone they are ends of names.
    state = {f"{name}.lora_{side}.weight": torch.empty(0) for name in modules for side in "AB"}
    try:
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, transformer, _ADAPTER, state_dict=state)
    except ValueError as error:
        remove_lora(transformer)
        raise UserError(f"{key}: a LoRA cannot be put into {type(transformer).__name__}: {error}") from error
    layers = dict(_layers(transformer))
    for name, (rank, alpha) in modules.items():
        layers[name].scaling[_ADAPTER] = alpha / rank
    return layers


def _check_fit(pairs: Mapping[str, LoraPair], modules: Mapping[str, Any], file: Path, key: str) -> None:
    """Refuses a LoRA of another model.

    Raises:
        UserError: it says which modules are not there, and whose shapes differ, of how many.
    """
    lost = [name for name in pairs if name not in modules]
    shapes = []
    for name, pair in pairs.items():
        if name in modules:
            mine = tuple(modules[name].weight.shape)
            its = (pair.up.shape[0], *pair.down.shape[1:])
            if mine != its:
                shapes.append(f"{name} {list(its)}, here {list(mine)}")
    found = [f"{len(lost)} are not in its transformer ({some(lost)})"] if lost else []
    found += [f"{len(shapes)} have another shape ({'; '.join(shapes[:3])})"] if shapes else []
    if found:
        raise UserError(
            f"{key}: the LoRA {file} does not fit the model: of its {len(pairs)} modules {' and '.join(found)} "
            f"(use a LoRA that was trained on this model)"
        )


def _matching(names: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The names that targets mean, in order.

    Raises:
        UserError: a target means none.
    """
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            known = sorted({part for name in names for part in (name, name.rpartition(".")[2])})
            hint = did_you_mean(target, known)
            raise UserError(f"targets: the transformer has no linear module '{target}'{f'; {hint}' if hint else ''}")
    return [name for name in names if any(name == target or name.endswith(f".{target}") for target in targets)]
