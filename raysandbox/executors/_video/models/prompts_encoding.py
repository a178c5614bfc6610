"""Prompts as what a text encoder makes of them, so that videos can be generated without it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import UserError
from raysandbox.core.memory import that_fits
from raysandbox.executors._video.models.calls import check_arguments
from raysandbox.executors._video.models.families import Family
from raysandbox.executors._video.options import GenerationOptions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ENCODING_OPTIONS", "encode_prompts", "uses_negative"]

ENCODING_OPTIONS = frozenset({"dtype", "negative_prompt", "guidance_scale", "arguments"})  # what embeddings depend on

_PASSED_ON = ("max_sequence_length", "prompt_template", "clean_caption")


def encode_prompts(pipe: Any, family: Family, prompt: str, options: GenerationOptions) -> dict[str, Tensor]:
    """What the call needs in place of a prompt, as the call itself would compute it.

    Args:
        pipe: a pipeline with its text encoders; the rest may be left out.
        family: of the pipeline.
        prompt: one prompt.
        options: negative prompt, guidance, and further arguments, of which those count that
            `encode_prompt` knows, e.g. max_sequence_length.

    Returns:
        arguments of the call by name, tensors on the CPU with a first dimension of 1.

    Raises:
        UserError: prompts of this family cannot be encoded first, or an argument is not the pipeline's.
        JobFailed: the GPU has no memory for it.
    """
    import torch

    if not family.encoded:
        raise UserError(
            f"encode_prompts_first: it is not known how {family.name} takes encoded prompts (set it to false)"
        )
    check_arguments(type(pipe), family, options)
    known = inspect.signature(pipe.encode_prompt).parameters
    negative = uses_negative(pipe, family, options)
    arguments: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": options.negative_prompt,
        "do_classifier_free_guidance": negative,
        "num_images_per_prompt": 1,
        "num_videos_per_prompt": 1,
        "device": pipe._execution_device,
        **_defaults(type(pipe)),
        **options.arguments,
    }
    given = {name: value for name, value in arguments.items() if name in known}

    def encoded() -> dict[str, Tensor]:
        with torch.no_grad():
            found = _named(family.encoded, pipe.encode_prompt(**given))
            if family.negative_apart and negative:
                other = options.arguments.get("negative_prompt_2")
                second = {"prompt": options.negative_prompt, **({"prompt_2": other} if "prompt_2" in known else {})}
                names = [f"negative_{name}" for name in family.encoded]
                found |= _named(names, pipe.encode_prompt(**{**given, **second}))
            return found

    return that_fits(encoded, "the GPU has no memory for the text encoder: set offload to 'model'")


def uses_negative(pipe: Any, family: Family, options: GenerationOptions) -> bool:
    """Whether the negative prompt counts: the guidance is above 1, by the options or the call's default."""
    if family.guidance is None:
        return True
    if family.guidance in options.arguments:
        scale = options.arguments[family.guidance]
    elif family.guidance == "guidance_scale" and options.guidance_scale is not None:
        scale = options.guidance_scale
    else:
        parameter = inspect.signature(type(pipe).__call__).parameters.get(family.guidance)
        scale = parameter.default if parameter is not None else None
    return scale is None or scale > 1


def _defaults(kind: type) -> dict[str, Any]:
    """What the call passes on to `encode_prompt` where a user says nothing: their own defaults may differ."""
    parameters = inspect.signature(kind.__call__).parameters
    return {name: parameters[name].default for name in _PASSED_ON if name in parameters}


def _named(names: Iterable[str], results: Iterable[Any]) -> dict[str, Tensor]:
    pairs = zip(names, results, strict=True)
    return {name: value.detach().cpu() for name, value in pairs if value is not None}
