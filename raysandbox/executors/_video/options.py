"""How videos are generated: the part of a configuration that several components share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Dtype", "GenerationOptions", "MemoryOptions", "Offload", "RequestOptions"]

Dtype = Literal["fp32", "bf16", "fp16"]
Offload = Literal["none", "model", "sequential"]


class MemoryOptions(BaseModel):
    """How a pipeline fits on a device, and how fast it is there.

    Which of these change a video is said with each; the others leave it as it is, bit for bit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    dtype: Dtype = Field("bf16", description="numbers of weights and computation; changes the videos")
    offload: Offload = Field(
        "none",
        description="keep on the GPU everything, one model at a time (model), or one layer (sequential)",
    )
    vae_tiling: bool = Field(False, description="decode in tiles, for large videos; changes the videos at the seams")
    vae_slicing: bool = Field(False, description="decode the videos of a batch one by one, where that is safe")
    attention_backend: str | None = Field(
        None, description="attention of diffusers (native, flash, sage, xformers, …); may change the last bits"
    )
    compile: bool = Field(False, description="compile the transformer (torch.compile); may change the last bits")


class RequestOptions(BaseModel):
    """What is asked of a pipeline, apart from the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    height: int | None = Field(None, ge=16, description="pixels; the pipeline's own default when null")
    width: int | None = Field(None, ge=16, description="pixels; the pipeline's own default when null")
    num_frames: int | None = Field(None, ge=1, description="frames of a video; the pipeline's own default when null")
    fps: int = Field(12, ge=1, description="frames per second of the files")
    num_inference_steps: int | None = Field(None, ge=1, description="denoising steps; the pipeline's default when null")
    guidance_scale: float | None = Field(
        None, ge=0, description="weight of the prompt; the pipeline's default when null"
    )
    negative_prompt: str = Field("", description="what videos should not show")
    arguments: dict[str, Any] = Field({}, description="further arguments of the pipeline's call, by name")


class GenerationOptions(RequestOptions, MemoryOptions):
    """What is generated, apart from prompts and model."""

    lora_weight: float = Field(1.0, description="share of the LoRA that is added to the weights")
    encode_prompts_first: bool = Field(
        True, description="encode all prompts once and generate without the text encoder in memory; same videos"
    )
