"""What a transformer learns: noise is added to latents, and it predicts what leads back.

Two kinds. Flow matching: the input is (1 - sigma) x + sigma n and the prediction n - x, with sigma
shifted as the model's scheduler does (Esser et al., arXiv 2403.03206). Diffusion: the scheduler's own
noise and prediction type, noise or velocity (Salimans and Ho, arXiv 2202.00512). How latents are laid
out, and what else a transformer is given, follows the pipelines of diffusers 0.39.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import UserError
from raysandbox.executors._video.models.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TRAINABLE", "Denoising", "Noised", "check_trainable", "denoising_of", "mean_squares"]

_GUIDANCE = 1000.0  # of HunyuanVideo's distilled guidance: a scale of 1, times 1000 as in its pipeline
_LTX_FRAME_RATE = 25  # the pipeline's default
_LTX_COMPRESSION = 8  # frames per latent frame, which matters to none but the first


@dataclass(frozen=True)
class Noised:
    """A batch for the transformer.

    Attributes:
        latents: with noise, laid out as the transformer takes them.
        timestep: one per clip, as the transformer takes it.
        target: what it should predict, of the shape of `latents`.
    """

    latents: Tensor
    timestep: Tensor
    target: Tensor


class Denoising:
    """The task for one family: this one is flow matching for transformers that take (B, C, F, H, W).

    Args:
        transformer: its configuration tells the layout.
        scheduler: of the model.
        pixels: frames, height and width of the clips.
        time_per_token: whether the transformer is told the time of each token (Wan 2.2 5B).

    Raises:
        UserError: the scheduler is of another kind.
    """

    def __init__(
        self, transformer: Any, scheduler: Any, pixels: tuple[int, int, int], *, time_per_token: bool = False
    ) -> None:
        self.transformer, self.scheduler = transformer, scheduler
        self.pixels, self.time_per_token = pixels, time_per_token
        self.steps = int(scheduler.config.num_train_timesteps)
        self._check()

    def arranged(self, latents: Tensor) -> Tensor:
        """Latents of shape (B, C, F, H, W) as the transformer takes them."""
        return latents

    def noised(self, clean: Tensor, noise: Tensor, density: Tensor, size: tuple[int, int, int]) -> Noised:
        """Adds noise.

        Args:
            clean: arranged latents.
            noise: of the same shape.
            density: in [0, 1], one per clip: 0 is all noise.
            size: frames, height and width of the latents.
        """
        sigma = self.sigma(density, size)
        wide = sigma.reshape(-1, *[1] * (clean.ndim - 1))
        latents = (1 - wide) * clean + wide * noise
        if self.scheduler.config.get("invert_sigmas"):  # Mochi's time runs from noise to video
            return Noised(latents, (1 - sigma) * self.steps, clean - noise)
        return Noised(latents, sigma * self.steps, noise - clean)

    def sigma(self, density: Tensor, size: tuple[int, int, int]) -> Tensor:
        """The share of noise: one of the scheduler's steps, shifted as it does while generating.

        With `shift_terminal` (LTX) they are stretched too: less noise than that never comes before the
        transformer while generating, and what it would learn of it is never used.
        """
        sigma = 1 - (density * self.steps).long().clamp(0, self.steps - 1) / self.steps
        if not self.scheduler.config.get("shift_terminal"):
            return self._shifted(sigma, size)
        import torch

        with_last = self._shifted(torch.cat([sigma, sigma.new_tensor([1 / self.steps])]), size)
        return self.scheduler.stretch_shift_to_terminal(with_last)[:-1]  # the last one tells it how far

    def _shifted(self, sigma: Tensor, size: tuple[int, int, int]) -> Tensor:
        config = self.scheduler.config
        if config.get("use_dynamic_shifting"):
            return self.scheduler.time_shift(self.shift_parameter(size), 1.0, sigma)
        shift = config.get("flow_shift") or config.get("shift") or 1.0
        return shift * sigma / (1 + (shift - 1) * sigma)

    def shift_parameter(self, size: tuple[int, int, int]) -> float:
        """`mu` of a shift that depends on the size: linear in the number of latent positions."""
        config = self.scheduler.config
        first, last = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return low + (math.prod(size) - first) * (high - low) / (last - first)

    def predicted(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> Tensor:
        """What the transformer makes of a batch, of the shape of the target."""
        arguments = self.arguments(noised, text, size)
        result = self.transformer(return_dict=False, **arguments)[0]
        channels = noised.target.shape[1]
        return result[:, :channels] if result.shape[1] == 2 * channels else result  # the rest is a variance

    def arguments(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> dict[str, Any]:
        """Of the transformer's call."""
        return {
            "hidden_states": noised.latents,
            "timestep": noised.timestep,
            "encoder_hidden_states": text["prompt_embeds"],
        }

    def _check(self) -> None:
        config = self.scheduler.config
        flows = "FlowMatch" in type(self.scheduler).__name__ or config.get("use_flow_sigmas")
        if not flows:
            raise UserError(
                f"model: its scheduler {type(self.scheduler).__name__} does no flow matching, which models of this "
                f"family are trained with (use the scheduler that the model was published with)"
            )


class _EasyAnimate(Denoising):
    def shift_parameter(self, size: tuple[int, int, int]) -> float:
        return 1.0  # whatever the size


class _Wan(Denoising):
    def arguments(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> dict[str, Any]:
        arguments = super().arguments(noised, text, size)
        if self.time_per_token:
            _, height, width = self.transformer.config.patch_size
            tokens = size[0] * (size[1] // height) * (size[2] // width)
            arguments["timestep"] = noised.timestep[:, None].expand(-1, tokens)
        return arguments


class _Ltx(Denoising):
    def arranged(self, latents: Tensor) -> Tensor:
        config = self.transformer.config
        batch, channels, frames, height, width = latents.shape
        p, t = config.patch_size, config.patch_size_t
        cut = latents.reshape(batch, channels, frames // t, t, height // p, p, width // p, p)
        return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)

    def predicted(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> Tensor:
        return self.transformer(return_dict=False, **self.arguments(noised, text, size))[0]

    def arguments(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> dict[str, Any]:
        frames, height, width = size
        time = (self.pixels[0] - 1) // (frames - 1) if frames > 1 else _LTX_COMPRESSION
        space = self.pixels[1] // height
        return {
            **super().arguments(noised, text, size),
            "encoder_attention_mask": text["prompt_attention_mask"],
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (time / _LTX_FRAME_RATE, space, space),
        }


class _HunyuanVideo(Denoising):
    def arguments(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> dict[str, Any]:
        arguments = super().arguments(noised, text, size)
        arguments["encoder_attention_mask"] = text["prompt_attention_mask"].to(noised.latents.dtype)
        arguments["pooled_projections"] = text["pooled_prompt_embeds"]
        if self.transformer.config.guidance_embeds:
            arguments["guidance"] = noised.latents.new_full((noised.latents.shape[0],), _GUIDANCE)
        return arguments


class _Mochi(Denoising):
    def arguments(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> dict[str, Any]:
        arguments = super().arguments(noised, text, size)
        return {**arguments, "encoder_attention_mask": text["prompt_attention_mask"]}


class _CogVideoX(Denoising):
    """Diffusion; frames come before channels."""

    def arranged(self, latents: Tensor) -> Tensor:
        patch = self.transformer.config.patch_size_t or 1
        lacking = -latents.shape[2] % patch
        if lacking:  # CogVideoX 1.5: put before the first frame, where the pipeline cuts them off
            latents = latents[:, :, [0] * lacking + list(range(latents.shape[2]))]
        return latents.transpose(1, 2).contiguous()

    def noised(self, clean: Tensor, noise: Tensor, density: Tensor, size: tuple[int, int, int]) -> Noised:
        timestep = self.steps - 1 - (density * self.steps).long().clamp(0, self.steps - 1)
        latents = self.scheduler.add_noise(clean, noise, timestep)
        if self.scheduler.config.prediction_type == "v_prediction":
            return Noised(latents, timestep, self.scheduler.get_velocity(clean, noise, timestep))
        return Noised(latents, timestep, noise)

    def predicted(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> Tensor:
        return self.transformer(return_dict=False, **self.arguments(noised, text, size))[0]

    def arguments(self, noised: Noised, text: Mapping[str, Tensor], size: tuple[int, int, int]) -> dict[str, Any]:
        arguments = super().arguments(noised, text, size)
        if self.transformer.config.use_rotary_positional_embeddings:
            arguments["image_rotary_emb"] = self._rotary(noised.latents)
        return arguments

    def _rotary(self, latents: Tensor) -> Any:
        """The positions that the pipeline would use; its sizes are in pixels, which do not matter here."""
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline

        frames, _, height, width = latents.shape[1:]
        pipe: Any = SimpleNamespace(transformer=self.transformer, vae_scale_factor_spatial=1)
        return CogVideoXPipeline._prepare_rotary_positional_embeddings(pipe, height, width, frames, latents.device)

    def _check(self) -> None:
        kind = self.scheduler.config.get("prediction_type")
        if kind not in ("epsilon", "v_prediction"):
            raise UserError(f"model: its scheduler predicts '{kind}'; training knows epsilon and v_prediction")


_KINDS: Mapping[str, type[Denoising]] = {
    "EasyAnimatePipeline": _EasyAnimate,
    "CogVideoXPipeline": _CogVideoX,
    "WanPipeline": _Wan,
    "SkyReelsV2Pipeline": _Wan,
    "LTXPipeline": _Ltx,
    "HunyuanVideoPipeline": _HunyuanVideo,
    "MochiPipeline": _Mochi,
}
TRAINABLE = tuple(_KINDS)


def check_trainable(layout: Layout, key: str = "model") -> None:
    """Refuses a model whose training is not known.

    Raises:
        UserError: it names the families that are.
    """
    if layout.pipeline not in _KINDS:
        raise UserError(f"{key}: {layout.pipeline} cannot be trained here; those that can are {', '.join(TRAINABLE)}")
    if "transformer_2" in layout.parts:
        raise UserError(
            f"{key}: {layout.folder} has two transformers for different noise (Wan 2.2 A14B), of which training knows "
            f"one (use a model with one, e.g. Wan 2.1 or Wan 2.2 5B)"
        )


def denoising_of(layout: Layout, transformer: Any, scheduler: Any, pixels: tuple[int, int, int]) -> Denoising:
    """The task of a model.

    Args:
        layout: of the model.
        transformer: of the model, or with other weights.
        scheduler: of the model.
        pixels: frames, height and width of the clips.

    Raises:
        UserError: its training is not known, or the scheduler is of another kind.
    """
    check_trainable(layout)
    per_token = bool(layout.settings.get("expand_timesteps"))
    return _KINDS[layout.pipeline](transformer, scheduler, pixels, time_per_token=per_token)


def mean_squares(predicted: Tensor, target: Tensor, drop_above: float | None) -> Tensor:
    """Mean squared difference of each clip, in fp32; elements that differ by more than `drop_above` count as 0."""
    difference = predicted.float() - target.float()
    if drop_above is not None:
        difference = difference * (difference.detach().abs() <= drop_above)  # a NaN stays one
    return difference.square().flatten(1).mean(1)
