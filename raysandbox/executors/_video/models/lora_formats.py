"""Reading LoRA files of the formats that are understood; the others are refused by name."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from raysandbox.core.errors import UserError
from raysandbox.executors._video.models.layout import reason

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LORA_METADATA", "LoraPair", "read_lora", "settings_digest", "some"]

logger = logging.getLogger(__name__)

LORA_METADATA = "raysandbox.lora"  # our entry of a file's metadata: JSON

_PEFT = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight$")
_ORIGINAL = re.compile(r"^lora_unet__(?P<module>.+)\.(?P<what>lora_down\.weight|lora_up\.weight|alpha)$")
_OTHER_PARTS = ("lora_te", "text_encoder", "base_model.model.text_encoder")
_ELSEWHERE = ("diffusion_model.", "transformer_2.")  # peft's keys, and not of the transformer in diffusers' layout
_UNSAFE = (".bin", ".ckpt", ".pt", ".pth", ".pkl")

# What a key tells of a file that is not understood; the first that is found counts.
_FOREIGN: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("a LoHa", lambda key: ".hada_" in key),
    ("a LoKr", lambda key: ".lokr_" in key),
    ("an OFT", lambda key: ".oft_" in key),
    ("a DoRA", lambda key: "lora_magnitude_vector" in key or "dora_scale" in key),
    ("a LoRA with biases", lambda key: key.endswith((".lora_A.bias", ".lora_B.bias", ".lora_bias"))),
    ("a LoRA of a second transformer", lambda key: key.startswith("transformer_2.")),
    ("a LoRA of the original model's own layout", lambda key: key.startswith("diffusion_model.")),
    ("a LoRA of Kohya's layout", lambda key: key.startswith("lora_unet_")),
    ("a LoRA of an old diffusers", lambda key: ".lora.down." in key or "_lora.down." in key),
    ("a LoRA of an unknown layout", lambda key: "lora" in key.lower()),
)


@dataclass(frozen=True)
class LoraPair:
    """The low-rank change of one module: its weight gains `alpha / rank · up @ down`.

    Attributes:
        down: tensor of shape (rank, inputs, …).
        up: tensor of shape (outputs, rank, …).
        alpha: see above.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Of the product."""
        return int(self.down.shape[0])


def read_lora(file: Path, modules: Iterable[str], key: str = "lora_path") -> dict[str, LoraPair]:
    """The pairs of a LoRA file, by the transformer's module.

    Two formats are understood: peft's and ours, `transformer.<module>.lora_A.weight` (also without the
    prefix, or with `base_model.model.`), and that of EasyAnimate's own scripts,
    `lora_unet__<module with _>.lora_down.weight`. Parts for a text encoder are left out, with a warning.

    Args:
        file: .safetensors file.
        modules: names of the transformer's modules, into which names of the second format are translated.
        key: what messages call the setting.

    Returns:
        pairs by module; a name that is not translated stays as it is in the file.

    Raises:
        UserError: the file cannot be read or has another format.
    """
    tensors, metadata = _load(file, key)
    others = [name for name in tensors if name.startswith(_OTHER_PARTS)]
    own = {name: tensor for name, tensor in tensors.items() if name not in set(others)}
    if others:
        logger.warning(
            "%s: the LoRA changes a text encoder too, which is left as it is: %d tensors of %s (%s)",
            *(key, len(others), file, some(others)),
        )
    if own and all(_ORIGINAL.match(name) for name in own):
        return _pairs_of_original(own, modules, file, key)
    alphas = {name.removesuffix(".alpha"): tensor for name, tensor in own.items() if name.endswith(".alpha")}
    rest = [name for name in own if not name.endswith(".alpha")]
    if rest and all(_PEFT.match(name) and not name.startswith(_ELSEWHERE) for name in rest):
        return _pairs_of_peft({name: own[name] for name in rest}, alphas, metadata, file, key)
    raise UserError(
        f"{key}: {file} is {_foreign(own) or 'no LoRA'} ({some(own or tensors)}), which is not understood "
        f"(use a LoRA as this program, peft or EasyAnimate's scripts write it)"
    )


def settings_digest(file: Path) -> str | None:
    """SHA-256 of the settings that lie beside a LoRA's file, on which its alpha may depend; None without them."""
    try:
        return hashlib.sha256(_settings_file(file).read_bytes()).hexdigest()
    except OSError:
        return None


def some(names: Iterable[str]) -> str:
    """The first three of some names, and how many there are besides."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def _load(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if file.suffix in _UNSAFE:
        raise UserError(f"{key}: {file} may run code when it is read (convert it to .safetensors)")
    if file.suffix != ".safetensors":
        raise UserError(f"{key}: {file} is no .safetensors file (give a LoRA in that format)")
    try:
        with safe_open(file, "pt") as content:
            return {name: content.get_tensor(name) for name in content.keys()}, dict(content.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {file} (correct the path)") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{key}: {file} cannot be read: {reason(error)} (copy it again)") from error


def _foreign(tensors: Collection[str]) -> str | None:
    """What a file is that is not understood, as far as its keys tell."""
    return next((what for what, tells in _FOREIGN if any(tells(name) for name in tensors)), None)


def _pairs_of_original(
    tensors: Mapping[str, Tensor], modules: Iterable[str], file: Path, key: str
) -> dict[str, LoraPair]:
    names = {_original_name(module): module for module in modules}
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _ORIGINAL.match(name)
        assert found is not None
        module = names.get(found["module"], found["module"])
        sides.setdefault(module, {})[found["what"]] = tensor
    return {
        module: _pair(module, parts.get("lora_down.weight"), parts.get("lora_up.weight"), parts.get("alpha"), file, key)
        for module, parts in sides.items()
    }


def _original_name(module: str) -> str:
    """A module of diffusers' EasyAnimate as its original names it in LoRA files.

    There, the text's own attention is a module beside the video's, with the same names.
    """
    name = re.sub(r"attn1\.add_([qkv])_proj$", r"attn2.to_\1", module)
    return re.sub(r"attn1\.to_add_out$", "attn2.to_out.0", name).replace(".", "_")


def _pairs_of_peft(
    tensors: Mapping[str, Tensor],
    alphas: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    file: Path,
    key: str,
) -> dict[str, LoraPair]:
    sides: dict[str, dict[str, Tensor]] = {}
    adapters: set[str] = set()
    for name, tensor in tensors.items():
        found = _PEFT.match(name)
        assert found is not None
        adapters.add(found["adapter"] or "")
        sides.setdefault(found["module"], {})[found["side"]] = tensor
    if len(adapters) > 1:
        raise UserError(f"{key}: {file} holds several LoRAs ({some(adapters)}): give a file with one")
    settings = _settings(metadata, file, key)
    pairs: dict[str, LoraPair] = {}
    for name, parts in sides.items():
        module = _plain(name)
        alpha = alphas.get(name)
        pair = _pair(module, parts.get("A"), parts.get("B"), alpha, file, key)
        pairs[module] = pair if alpha is not None else LoraPair(pair.down, pair.up, _alpha(settings, module, pair.rank))
    return pairs


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").removeprefix("transformer.")


def _pair(module: str, down: Tensor | None, up: Tensor | None, alpha: Tensor | None, file: Path, key: str) -> LoraPair:
    if down is None or up is None:
        raise UserError(f"{key}: {file} has one half only of the LoRA of {module} (copy or export it again)")
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1]:
        raise UserError(
            f"{key}: the halves of the LoRA of {module} in {file} do not fit each other: "
            f"{tuple(down.shape)} and {tuple(up.shape)} (export it again)"
        )
    if not (bool(down.float().isfinite().all()) and bool(up.float().isfinite().all())):
        raise UserError(
            f"{key}: the LoRA of {module} in {file} holds NaN or infinite numbers (train or export it again)"
        )
    if alpha is not None and (alpha.numel() != 1 or not math.isfinite(alpha.item())):
        raise UserError(f"{key}: the alpha of {module} in {file} is not one number (export it again)")
    return LoraPair(down, up, float(down.shape[0] if alpha is None else alpha.item()))


def _settings_file(file: Path) -> Path:
    return file.with_name("adapter_config.json")  # as peft lays it there


def _settings(metadata: Mapping[str, str], file: Path, key: str) -> Mapping[str, Any]:
    """What is said of alpha, by peft's names: in the file's metadata, or in the file that peft lays beside it.

    Raises:
        UserError: it cannot be read, or is of a kind of LoRA that is not understood.
    """
    beside = _settings_file(file)
    try:
        if LORA_METADATA in metadata:
            settings = json.loads(metadata[LORA_METADATA])
        elif "lora_adapter_metadata" in metadata:  # of diffusers' save_lora_weights
            found = json.loads(metadata["lora_adapter_metadata"])
            settings = {name.removeprefix("transformer."): value for name, value in found.items()}
        elif beside.exists():
            settings = json.loads(beside.read_text(encoding="utf-8"))
        else:
            return {}
        _check_settings(settings)
    except (OSError, ValueError, AttributeError, re.error) as error:
        raise UserError(f"{key}: what {file} says of its alpha cannot be read: {error} (export it again)") from error
    if settings.get("use_dora"):
        raise UserError(f"{key}: {file} is a DoRA, which is not understood (use a plain LoRA)")
    return settings


def _check_settings(settings: Any) -> None:
    """Refuses settings from which no alpha can be computed.

    Raises:
        ValueError: they are no mapping, or an alpha is no number.
        re.error: a pattern of module names is none.
    """
    if not isinstance(settings, dict):
        raise ValueError(f"{settings!r} is no mapping")
    given = cast(dict[str, Any], settings)
    patterns = given.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"alpha_pattern is {patterns!r}, which is no mapping")
    named = {"lora_alpha": given.get("lora_alpha"), **cast(dict[str, Any], patterns)}
    for name, value in named.items():
        re.compile(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
        ):
            raise ValueError(f"{name} is {value!r}, which is no number")


def _alpha(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """Alpha of a module, as peft finds it; the rank, so that the scale is 1, where nothing is said."""
    patterns = settings.get("alpha_pattern") or {}
    found = next((value for text, value in patterns.items() if re.match(rf"(.*\.)?({text})$", module)), None)
    alpha = found if found is not None else settings.get("lora_alpha")
    if alpha is None:
        return float(rank)
    return float(alpha) * (math.sqrt(rank) if settings.get("use_rslora") else 1.0)
