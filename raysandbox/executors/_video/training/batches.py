"""Which clips a step learns from, and with what noise: drawn by seed, step and position, by nothing else.

A step's clips are the same however many workers share them, and so is the noise of each: the number of
workers, the size of a batch in memory and what was trained before a restart change no draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.core.keys import digest
from raysandbox.executors._video.training.denoising import Denoising, Noised
from raysandbox.executors._video.training.latents import read_tensors
from raysandbox.executors._video.training.options import TrainingOptions

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Example", "Examples", "clips_of_step"]


@dataclass(frozen=True)
class Example:
    """The files of a clip.

    Attributes:
        latents: distribution of its latents.
        text: embeddings of its caption.
    """

    latents: Path
    text: Path


@dataclass(frozen=True)
class Batch:
    """What the transformer is given at once.

    Attributes:
        noised: latents with noise, and what to predict.
        text: embeddings of the captions, by the names of the pipeline's call.
        size: frames, height and width of the latents.
    """

    noised: Noised
    text: dict[str, torch.Tensor]
    size: tuple[int, int, int]


@dataclass(frozen=True)
class _Draw:
    """A clip with what was drawn for it; tensors with a first dimension of 1.

    Attributes:
        clean: its latents, arranged.
        noise: of the same shape.
        density: says how much noise.
        text: embeddings of its caption, or of none.
    """

    clean: torch.Tensor
    noise: torch.Tensor
    density: torch.Tensor
    text: Path


def clips_of_step(step: int, clips: int, per_step: int, seed: int) -> list[int]:
    """Indices of the clips of a step, counted from 1: each epoch is another order of all clips, one after the other."""
    first = (step - 1) * per_step
    return [int(_order(seed, number // clips, clips)[number % clips]) for number in range(first, first + per_step)]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, clips: int) -> Any:
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(clips)


@dataclass(frozen=True)
class Examples:
    """Makes batches of clips.

    Attributes:
        clips: to train on.
        held_out: to validate with.
        without_caption: embeddings of the empty caption.
        options: of the training.
        denoising: the task.
        device: where batches go.
    """

    clips: Sequence[Example]
    held_out: Sequence[Example]
    without_caption: Path
    options: TrainingOptions
    denoising: Denoising
    device: str

    def training(self, step: int, chosen: Sequence[int], first: int) -> Batch:
        """A batch of a step.

        Args:
            step: counted from 1.
            chosen: indices of the clips.
            first: position of the first of them among the step's clips.
        """
        latents = [read_tensors(self.clips[clip].latents) for clip in chosen]
        draws = [
            self._drawn(stored, self.clips[clip].text, step, position)
            for position, (clip, stored) in enumerate(zip(chosen, latents, strict=True), start=first)
        ]
        return self._batch(draws, latents[0]["mean"].shape)

    def validation(self, clip: int) -> Batch:
        """A held-out clip at several shares of noise, the same each time."""
        import torch

        count = self.options.validation_timesteps
        example = self.held_out[clip]
        latents = read_tensors(example.latents)["mean"].float()
        clean = self.denoising.arranged(latents[None])
        draws = []
        for number in range(count):
            generator = _generator(self.options.seed, "validation", clip, number)
            noise = torch.randn(clean.shape, generator=generator)
            draws.append(_Draw(clean, noise, torch.tensor([(number + 0.5) / count]), example.text))
        return self._batch(draws, latents.shape)

    def _drawn(self, stored: Mapping[str, torch.Tensor], text: Path, step: int, position: int) -> _Draw:
        """What chance decides of one clip."""
        import torch
        from diffusers.training_utils import compute_density_for_timestep_sampling

        options = self.options
        generator = _generator(options.seed, "training", step, position)
        dropped = torch.rand((), generator=generator).item() < options.caption_dropout
        density = compute_density_for_timestep_sampling(
            options.weighting_scheme, 1, options.logit_mean, options.logit_std, options.mode_scale, generator=generator
        )
        mean, std = stored["mean"].float(), stored["std"].float()
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        clean = self.denoising.arranged(latents[None])
        noise = torch.randn(clean.shape, generator=generator)
        return _Draw(clean, noise, density.float(), self.without_caption if dropped else text)

    def _batch(self, draws: Sequence[_Draw], shape: Sequence[int]) -> Batch:
        """Puts draws together; `shape` is (channels, frames, height, width) of the latents."""
        import torch

        from raysandbox.executors._video.models.pipelines import torch_dtype

        _, frames, height, width = shape
        size = (frames, height, width)
        tensors = ([draw.clean for draw in draws], [draw.noise for draw in draws], [draw.density for draw in draws])
        clean, noise, density = (torch.cat(each).to(self.device) for each in tensors)
        noised = self.denoising.noised(clean, noise, density, size)
        dtype = torch_dtype(self.options.dtype)
        texts = [read_tensors(draw.text) for draw in draws]
        text = {name: torch.cat([each[name] for each in texts]).to(self.device) for name in texts[0]}
        text = {name: each.to(dtype) if each.is_floating_point() else each for name, each in text.items()}
        return Batch(Noised(noised.latents.to(dtype), noised.timestep, noised.target), text, size)


def _generator(*names: Any) -> torch.Generator:
    """Of random numbers on the CPU, which are the same wherever the computation is."""
    import torch

    return torch.Generator().manual_seed(int(digest(list(names))[:15], 16))
