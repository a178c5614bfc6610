"""How a LoRA is trained: the part of a configuration that is not about files."""

from __future__ import annotations

from math import cos, pi
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysandbox.core.errors import UserError
from raysandbox.executors._video.options import Dtype, GenerationOptions, RequestOptions

__all__ = ["SampleOptions", "TrainingOptions"]


class SampleOptions(RequestOptions):
    """How sample videos are generated while training, with its transformer as it is: in its dtype, on its device.

    Sizes and tiling are the training's where they are null.
    """

    num_inference_steps: int | None = Field(25, ge=1, description="denoising steps")
    vae_tiling: bool | None = Field(None, description="decode in tiles; as the training's vae_tiling if null")
    seed: int = Field(0, ge=0, description="of the samples' noise: the same at every checkpoint")


def _sample_options() -> SampleOptions:
    return SampleOptions.model_validate({})


class TrainingOptions(BaseModel):
    """Numbers of a training. Defaults are those of EasyAnimate 5.1 where it has any."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    height: int = Field(256, ge=16, description="pixels; clips are scaled and cut to it")
    width: int = Field(256, ge=16, description="pixels; clips are scaled and cut to it")
    num_frames: int = Field(49, ge=1, description="frames that are taken of a clip")
    vae_tiling: bool = Field(False, description="encode clips in tiles, for large videos; changes them at the seams")
    stride: int = Field(3, ge=1, description="distance between them, in frames; smaller where a clip is too short")

    rank: int = Field(128, ge=1, description="rank of the LoRA")
    alpha: float = Field(64, gt=0, description="the LoRA counts alpha / rank")
    targets: list[str] | None = Field(
        None, description="layers that get a LoRA, by the ends of their names; every linear layer if null"
    )

    learning_rate: float = Field(1e-4, gt=0, description="of AdamW, after the warm-up")
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="constant, or falling to 0 at the last step"
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises from 0")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    max_grad_norm: float = Field(0.05, gt=0, description="gradients are scaled down to this norm")

    batch_size: int = Field(1, ge=1, description="clips of a worker at once")
    gradient_accumulation_steps: int = Field(1, ge=1, description="batches of a worker in a step")
    gradient_checkpointing: bool = Field(True, description="compute activations again instead of keeping them")
    epochs: int = Field(1, ge=1, description="passes over the clips")
    max_steps: int | None = Field(None, ge=1, description="steps in all; instead of epochs")
    dtype: Dtype = Field("bf16", description="numbers of the frozen weights and of the computation; the LoRA is fp32")
    seed: int = Field(42, ge=0, description="of everything that is drawn")

    weighting_scheme: Literal["logit_normal", "mode", "none"] = Field(
        "logit_normal", description="how the share of noise is drawn; none: evenly"
    )
    logit_mean: float = Field(0.0, description="for logit_normal")
    logit_std: float = Field(1.0, gt=0, description="for logit_normal")
    mode_scale: float = Field(1.29, description="for mode")
    caption_dropout: float = Field(0.1, ge=0, le=1, description="share of clips that are trained without caption")
    drop_above: float | None = Field(
        50.0, gt=0, description="elements that the prediction misses by more do not count; null: all count"
    )

    checkpoint_every: int | None = Field(None, ge=1, description="steps between checkpoints; always one at the end")
    checkpoint_each_epoch: bool = Field(False, description="also a checkpoint at the end of each epoch")
    keep_last: int = Field(2, ge=1, description="checkpoints whose state of the optimizer is kept, to go on from")
    validation_timesteps: int = Field(4, ge=1, description="shares of noise at which held-out clips are looked at")
    sample_prompts: list[str] = Field([], description="prompts of which each checkpoint makes a video")
    sample_options: SampleOptions = Field(default_factory=_sample_options, description="how these are generated")

    @model_validator(mode="after")
    def _warmup_ends(self) -> TrainingOptions:
        if self.max_steps is not None and self.warmup_steps >= self.max_steps:
            raise ValueError("warmup_steps must be fewer than max_steps")
        return self

    @property
    def generation(self) -> GenerationOptions:
        """What validation of sizes, loading and encoding of captions need; no negative prompt."""
        names = ("dtype", "vae_tiling", "height", "width", "num_frames")
        return GenerationOptions.model_validate({name: getattr(self, name) for name in names} | {"guidance_scale": 1})

    @property
    def samples(self) -> GenerationOptions:
        """How sample videos are generated."""
        given = self.sample_options.model_dump(exclude={"seed"}, exclude_none=True)
        names = ("dtype", "vae_tiling", "height", "width", "num_frames")
        return GenerationOptions.model_validate({name: getattr(self, name) for name in names} | given)

    def steps(self, clips: int, workers: int) -> int:
        """How many steps the training takes."""
        return self.max_steps or max(1, -(-self.epochs * clips // self.clips_per_step(workers)))

    def check_warmup(self, clips: int, workers: int) -> None:
        """Refuses a warm-up that lasts as long as the training: its learning rate would never be reached.

        Raises:
            UserError: it says how many steps there are.
        """
        steps = self.steps(clips, workers)
        if self.warmup_steps >= steps:
            raise UserError(
                f"warmup_steps is {self.warmup_steps}, and the training of {clips} clips on {workers} worker(s) has "
                f"{steps} steps (set fewer warmup_steps, or more epochs)"
            )

    def clips_per_step(self, workers: int) -> int:
        """The clips of one step, over all workers."""
        return self.batch_size * self.gradient_accumulation_steps * workers

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 1."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / (self.warmup_steps + 1)
        if self.lr_scheduler == "constant":
            return self.learning_rate
        done = (step - 1 - self.warmup_steps) / max(steps - self.warmup_steps, 1)
        share = 1 - done if self.lr_scheduler == "linear" else (1 + cos(pi * done)) / 2
        return self.learning_rate * share
