"""What is particular to the model families that generate videos. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from raysandbox.core.errors import UserError
from raysandbox.executors._video.models.layout import PipelineSource, fetch, local_folder, read_layout
from raysandbox.executors._video.options import GenerationOptions

__all__ = ["Family", "check_request", "family_if_local", "family_of"]


@dataclass(frozen=True)
class Family:
    """A model family, by the class of its pipeline.

    Attributes:
        name: class of the pipeline in diffusers.
        size_multiple: height and width are multiples of it; 1 where diffusers says nothing.
        frame_step: numbers of frames are multiples of it plus one; 1 where any number goes.
        encoded: the call's arguments for encoded prompts, in the order of `encode_prompt`'s results; empty
            where prompts cannot be encoded first.
        negative_apart: whether `encode_prompt` knows no negative prompt and is called again for it; the
            arguments then have the prefix `negative_`.
        guidance: the argument above 1 which makes the negative prompt count; None where it always does.
        safe_slicing: whether the autoencoder may decode the videos of a batch one by one.
        exact_autoencoder: whether the autoencoder works in fp32 whatever the dtype, as its makers advise.
    """

    name: str
    size_multiple: int = 1
    frame_step: int = 1
    encoded: tuple[str, ...] = ()
    negative_apart: bool = False
    guidance: str | None = "guidance_scale"
    safe_slicing: bool = True
    exact_autoencoder: bool = False


_PAIR = ("prompt_embeds", "negative_prompt_embeds")
_MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")

# Multiples and steps as diffusers 0.39 checks them in `check_inputs`, or rounds to in silence.
_FAMILIES = {
    family.name: family
    for family in (
        Family(
            "EasyAnimatePipeline",
            16,
            4,
            ("prompt_embeds", "negative_prompt_embeds", "prompt_attention_mask", "negative_prompt_attention_mask"),
            safe_slicing=False,  # its autoencoder does not clear what it keeps of one video before the next
        ),
        # Its autoencoder makes 4n frames of n latents where n is even.
        Family("CogVideoXPipeline", 16, 8, _PAIR),
        Family("WanPipeline", 16, 4, _PAIR, exact_autoencoder=True),
        Family("SkyReelsV2Pipeline", 16, 4, _PAIR, exact_autoencoder=True),
        Family("LTXPipeline", 32, 8, _MASKED),
        Family(
            "HunyuanVideoPipeline",
            16,
            4,
            ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"),
            negative_apart=True,
            guidance="true_cfg_scale",
        ),
        Family("MochiPipeline", 16, 6, _MASKED),
    )
}


def family_of(model: str, key: str = "model") -> Family:
    """The family of a model, from its index; any other pipeline of diffusers has no particulars.

    Args:
        model: folder in diffusers' layout, or id on the Hugging Face hub, of which only the settings are fetched.
        key: what messages call the setting.

    Raises:
        UserError: it is no model in diffusers' layout, or is not here and cannot be fetched.
    """
    return _family(fetch(PipelineSource(model, key=key), weights=False), key)


def family_if_local(model: str, key: str = "model") -> Family | None:
    """Like `family_of`, and None for a model that is not on this machine: nothing is fetched.

    Raises:
        UserError: it is here, and no model in diffusers' layout.
    """
    folder = local_folder(model)
    return None if folder is None else _family(folder, key)


def check_request(family: Family, options: GenerationOptions) -> None:
    """Refuses sizes and numbers of frames that a family would refuse, round, or answer with noise.

    Raises:
        UserError: it names the nearest values that fit.
    """
    for key in ("height", "width"):
        size = getattr(options, key)
        if size is not None and size % family.size_multiple:
            raise UserError(
                f"{key} is {size}: {family.name} needs a multiple of {family.size_multiple} "
                f"(set {_nearest(size, family.size_multiple, 0)})"
            )
    frames = options.num_frames
    if frames is not None and (frames - 1) % family.frame_step:
        raise UserError(
            f"num_frames is {frames}: {family.name} needs {family.frame_step}k + 1 frames "
            f"(set {_nearest(frames, family.frame_step, 1)})"
        )


def _family(folder: Path, key: str) -> Family:
    name = read_layout(folder, key).pipeline
    family = _FAMILIES.get(name) or Family(name)
    return replace(family, size_multiple=_patch(folder)) if name == "WanPipeline" else family


def _patch(folder: Path) -> int:
    """Pixels that a patch of Wan's transformer spans: twice those of a latent, 8 or (2.2, 5B) 16."""
    try:
        vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
        return 2 * int(vae.get("scale_factor_spatial", 8))
    except (OSError, ValueError, AttributeError, TypeError):
        return 16


def _nearest(value: int, step: int, rest: int) -> str:
    """The values below and above that are `rest` more than a multiple; the lower one only if positive."""
    below = (value - rest) // step * step + rest
    return f"{below} or {below + step}" if below > 0 else str(below + step)
