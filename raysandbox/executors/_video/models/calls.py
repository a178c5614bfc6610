"""Calling a text-to-video pipeline: one video, the same bits wherever it is made."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from raysandbox.core.errors import JobFailed, UserError, did_you_mean
from raysandbox.core.memory import that_fits
from raysandbox.executors._video.models.families import Family
from raysandbox.executors._video.models.layout import reason
from raysandbox.executors._video.options import GenerationOptions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_arguments", "check_pipeline", "generate"]

logger = logging.getLogger(__name__)

_FRAMES = ("num_frames", "video_length", "frames")  # names of one argument, by family
_COUNTS = ("num_videos_per_prompt", "num_images_per_prompt")
# Set here for every video; a user's value would be overwritten, or break what is promised of seeds.
_OURS = frozenset(
    {"prompt", "generator", "latents", "output_type", "return_dict", *_COUNTS}
    | {"callback_on_step_end", "callback_on_step_end_tensor_inputs", "prompt_embeds", "negative_prompt_embeds"}
)
_PROMPTS = ("negative_prompt", "prompt_2", "negative_prompt_2")  # besides the prompt
_FIELDS = ("height", "width", "num_inference_steps", "guidance_scale", "negative_prompt")


def generate(
    pipe: Any,
    family: Family,
    options: GenerationOptions,
    seed: int,
    *,
    prompt: str | None,
    encoded: Mapping[str, Tensor] | None,
) -> np.ndarray:
    """One video of a prompt, given as text or encoded.

    Its noise comes from a generator on the CPU of its own, so that it depends on the seed alone: not on the
    device, nor on what was generated before. Numbers in [0, 1] become the nearest of 0 … 255, halves to even.

    Args:
        pipe: from `load_pipeline`.
        family: of the pipeline.
        options: sizes, steps, guidance and the like.
        seed: of the noise.
        prompt: the prompt's text, or None.
        encoded: what `encode_prompts` made of it, or None.

    Returns:
        uint8 array of shape (frames, height, width, 3).

    Raises:
        UserError: an argument is not the pipeline's.
        JobFailed: the GPU has no memory for it, or the video is black or no numbers.
    """
    import torch

    arguments = _arguments(type(pipe), family, options)
    _warn_of_ignored(type(pipe), family, options)
    if encoded is not None:
        for name in _PROMPTS:
            arguments.pop(name, None)
        device = pipe._execution_device
        arguments |= {name: tensor.to(device) for name, tensor in encoded.items()}
    else:
        arguments["prompt"] = prompt
    _clear_conv_cache(getattr(pipe, "vae", None))

    def frames_of() -> Any:
        generator = torch.Generator("cpu").manual_seed(seed)  # anew in a second try
        with torch.no_grad():
            return pipe(**arguments, generator=generator, output_type="np").frames

    try:
        refusal = f"the GPU has no memory for a video of {_size(options)}: lower it, or set offload or vae_tiling"
        frames = that_fits(frames_of, refusal)
    except (ValueError, TypeError) as error:
        raise JobFailed(f"{family.name} refuses the request: {reason(error)}") from error
    return _pixels(np.asarray(frames[0]), family, options)


def check_arguments(kind: type, family: Family, options: GenerationOptions) -> None:
    """Refuses `arguments` that a pipeline's call does not have, or that are set here.

    Raises:
        UserError: it names the closest argument and all there are.
    """
    known = inspect.signature(kind.__call__).parameters
    free = sorted(set(known) - _OURS - {"self"})
    for name in options.arguments:
        own_key = name in GenerationOptions.model_fields and name != "fps"  # ours is the files'; a model may have one
        if name in _OURS or own_key:
            where = "a key of its own" if own_key else "set for every video"
            raise UserError(f"arguments.{name} is {where} (take it out of arguments)")
        if name not in known:
            hint = did_you_mean(name, free)
            raise UserError(
                f"arguments: {family.name} has no argument '{name}'{f'; {hint}' if hint else ''} "
                f"(it has {', '.join(free)})"
            )


def check_pipeline(kind: type, key: str) -> None:
    """Refuses pipelines that make no videos from text alone.

    Raises:
        UserError: it says what the pipeline needs.
    """
    known = inspect.signature(kind.__call__).parameters
    needed = [
        name
        for name, parameter in known.items()
        if parameter.default is parameter.empty
        and name not in ("self", "prompt")
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    if needed:
        raise UserError(f"{key}: {kind.__name__} needs {' and '.join(needed)}: it makes no videos from text alone")
    if "prompt" not in known or not any(name in known for name in _FRAMES):
        raise UserError(f"{key}: {kind.__name__} makes no videos from text (use a text-to-video model)")


def _arguments(kind: type, family: Family, options: GenerationOptions) -> dict[str, Any]:
    """The call's arguments but for prompt and seed: those that the user set and the pipeline has."""
    check_arguments(kind, family, options)
    known = inspect.signature(kind.__call__).parameters
    wanted: dict[str, Any] = {name: getattr(options, name) for name in _FIELDS}
    frames = next((name for name in _FRAMES if name in known), "num_frames")
    wanted[frames] = options.num_frames
    arguments = {name: value for name, value in wanted.items() if value is not None and name in known}
    arguments |= {name: 1 for name in _COUNTS if name in known}
    return arguments | options.arguments


def _warn_of_ignored(kind: type, family: Family, options: GenerationOptions) -> None:
    """Names the settings that a pipeline has no argument for, once in a process."""
    known = inspect.signature(kind.__call__).parameters
    ignored = [name for name in _FIELDS if getattr(options, name) and name not in known]
    if ignored:
        _warn_once(f"{family.name} has no {', '.join(ignored)}: without effect")


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _clear_conv_cache(vae: Any) -> None:
    """Drops what an autoencoder keeps of a video whose decoding was interrupted."""
    for name in ("_clear_conv_cache", "clear_cache"):
        if hasattr(vae, name):
            getattr(vae, name)()


def _pixels(frames: np.ndarray, family: Family, options: GenerationOptions) -> np.ndarray:
    if family.frame_step > 1 and options.num_frames not in (None, len(frames)):
        raise JobFailed(f"{family.name} made {len(frames)} frames, not {options.num_frames}")
    if not np.isfinite(frames).all():
        raise JobFailed(
            f"the video has pixels that are no numbers: an overflow with dtype {options.dtype} "
            f"(set dtype to {'bf16 or fp32' if options.dtype == 'fp16' else 'fp32'})"
        )
    if not frames.any():
        raise JobFailed(
            f"every pixel of the video is black, as after an overflow with dtype {options.dtype} (try another dtype)"
        )
    return np.rint(frames * 255).astype(np.uint8)


def _size(options: GenerationOptions) -> str:
    shown = [options.num_frames, options.height, options.width]
    return "×".join("default" if size is None else str(size) for size in shown)
