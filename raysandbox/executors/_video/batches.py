"""Which clips a step learns from, and with what noise: drawn by seed, step and position, by nothing else.

A step's clips are the same however many workers share them, and so is the noise of each: the number of
workers, the size of a batch in memory and what was trained before a restart change no draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.core.keys import digest
from raysandbox.executors._video.denoising import Denoising, Noised
from raysandbox.executors._video.latents import read_tensors
from raysandbox.executors._video.training_options import TrainingOptions

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
        return self._batch([self._drawn(self.clips[clip], step, first + i) for i, clip in enumerate(chosen)])

    def validation(self, clip: int) -> Batch:
        """A held-out clip at several shares of noise, the same each time."""
        import torch

        count = self.options.validation_timesteps
        example = self.held_out[clip]
        clean = self.denoising.arranged(read_tensors(example.latents)["mean"].float()[None])
        draws = []
        for number in range(count):
            generator = _generator(self.options.seed, "validation", clip, number)
            noise = torch.randn(clean.shape, generator=generator)
            draws.append((example, clean, noise, torch.tensor([(number + 0.5) / count]), example.text))
        return self._batch(draws)

    def _drawn(self, example: Example, step: int, position: int) -> Any:
        """All that chance decides of one clip."""
        import torch
        from diffusers.training_utils import compute_density_for_timestep_sampling

        options = self.options
        generator = _generator(options.seed, "training", step, position)
        dropped = torch.rand((), generator=generator).item() < options.caption_dropout
        density = compute_density_for_timestep_sampling(
            options.weighting_scheme, 1, options.logit_mean, options.logit_std, options.mode_scale, generator=generator
        )
        stored = read_tensors(example.latents)
        mean, std = stored["mean"].float(), stored["std"].float()
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        clean = self.denoising.arranged(latents[None])
        noise = torch.randn(clean.shape, generator=generator)
        return example, clean, noise, density, self.without_caption if dropped else example.text

    def _batch(self, draws: Sequence[Any]) -> Batch:
        import torch

        from raysandbox.executors._video.pipelines import torch_dtype

        examples, clean, noise, density, files = zip(*draws, strict=True)
        frames, height, width = read_tensors(examples[0].latents)["mean"].shape[1:]
        size = (frames, height, width)
        clean, noise, density = (torch.cat(each).to(self.device) for each in (clean, noise, density))
        noised = self.denoising.noised(clean, noise, density.float(), size)
        dtype = torch_dtype(self.options.dtype)
        texts = [read_tensors(file) for file in files]
        text = {name: torch.cat([each[name] for each in texts]).to(self.device) for name in texts[0]}
        text = {name: each.to(dtype) if each.is_floating_point() else each for name, each in text.items()}
        return Batch(Noised(noised.latents.to(dtype), noised.timestep, noised.target), text, size)


def _generator(*names: Any) -> torch.Generator:
    """Of random numbers on the CPU, which are the same wherever the computation is."""
    import torch

    return torch.Generator().manual_seed(int(digest(list(names))[:15], 16))
