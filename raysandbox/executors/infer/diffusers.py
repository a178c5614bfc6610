"""Videos from text by a pipeline of diffusers: EasyAnimate 5.1, CogVideoX, Wan, HunyuanVideo, LTX, Mochi and others."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from raysandbox.core.component import InputPath, ModelPath
from raysandbox.core.errors import UserError
from raysandbox.core.keys import DigestMemo, code_version, library_versions
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.executors._video.generation.encoded_prompts import EncodedPrompts, read_encoded
from raysandbox.executors._video.generation.generating import GenerationWork, Made, Prepare
from raysandbox.executors._video.generation.units import VideoUnit
from raysandbox.executors._video.models.calls import check_arguments
from raysandbox.executors._video.models.families import Family, check_request, family_if_local, family_of
from raysandbox.executors._video.models.layout import missing_weights_of
from raysandbox.executors._video.models.lora import find_lora, load_lora
from raysandbox.executors._video.models.lora_formats import read_lora, settings_digest
from raysandbox.executors._video.models.pipelines import (
    PipelineSource,
    encode_prompts,
    generate,
    load_encoders,
    load_pipeline,
    model_digest,
    peak_memory,
)
from raysandbox.executors._video.models.prompts_encoding import ENCODING_OPTIONS
from raysandbox.executors._video.options import GenerationOptions
from raysandbox.executors.infer._videos import VideoInference

__all__ = ["DiffusersInference", "PipelineMaker"]

# What leaves the videos as they are, bit for bit.
_NEUTRAL = {"offload", "vae_slicing", "encode_prompts_first"}
_ENCODING_LIBRARIES = ("torch", "transformers", "diffusers")
_LIBRARIES = (*_ENCODING_LIBRARIES, "peft")


@register("diffusers")
class DiffusersInference(GenerationOptions, VideoInference):
    """Generates videos of prompts with a text-to-video pipeline of diffusers and, if given, a LoRA.

    A queue over as many workers as `resources` asks for, by default one for each GPU of the cluster. Every
    video has its own seed, so that it is the same whatever else is made, where and when.
    """

    extras: ClassVar[tuple[str, ...]] = ("video",)
    example: ClassVar[Mapping[str, Any]] = {
        "model": "alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers",
        "lora_path": "./outputs/demo/lora",
        "prompts": "./VBench_full_info.json",
        "videos_per_prompt": 5,
        "output_dir": "./outputs/demo/videos",
        "height": 384,
        "width": 672,
        "num_frames": 49,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    }

    model: ModelPath = Field(description="folder of the model in diffusers' layout, or its id on the Hugging Face hub")
    transformer_path: InputPath | None = Field(
        None, description="other weights for the transformer: a folder in diffusers' layout, or a .safetensors file"
    )
    lora_path: InputPath | None = Field(
        None, description="LoRA: a .safetensors file, or a folder, of which the newest checkpoint is taken"
    )

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """What lies beside a LoRA's file and counts; that of a folder is part of the input."""
        path = raw.get("lora_path")
        file = Path(path).expanduser() if isinstance(path, str) else None
        return settings_digest(file) if file is not None and file.is_file() else None

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, when it is not on this machine or lacks files."""
        missing = missing_weights_of(raw.get("model"))
        return {"model": missing} if missing else {}

    @model_validator(mode="after")
    def _fits_the_family(self) -> DiffusersInference:
        """What can be known of the request without loading the model."""
        family = None
        with contextlib.suppress(UserError):  # of a folder that is no model, which `missing_weights` tells
            family = family_if_local(self.model)
        try:
            if family is not None:
                check_request(family, self)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def _require(self) -> None:
        check_request(family_of(self.model), self)
        if self.lora_path is not None:
            self._lora()

    def _identity(self, session: WorkSession) -> Any:
        memo = DigestMemo(session.cache_dir / "digests")
        lora = self._lora()
        return {
            "code": code_version(PipelineMaker, GenerationWork, load_pipeline, generate, load_lora, read_lora),
            "encoding": self._encoding(memo),
            "libraries": library_versions(*_LIBRARIES),
            "model": model_digest(self._source(), memo),
            "lora": None if lora is None else [memo.of(lora), settings_digest(lora), self.lora_weight],
            "options": self._options().model_dump(exclude=_NEUTRAL | {"lora_weight"}),
        }

    def _maker(self, session: WorkSession) -> PipelineMaker:
        lora = self._lora()
        encoders = not self._encodes_first()
        return PipelineMaker(self._source(), self._options(), None if lora is None else str(lora), encoders)

    def _prepare(self, session: WorkSession) -> Prepare | None:
        if not self._encodes_first():
            return None
        identity = self._encoding(DigestMemo(session.cache_dir / "digests"))
        return EncodedPrompts(self._source(), self._options(), identity, session, self.stall_timeout_s)

    def _encoding(self, memo: DigestMemo) -> Any:
        """What encoded prompts depend on beside the prompt, wherever they are encoded."""
        return [
            code_version(EncodedPrompts, encode_prompts, load_encoders, Family, PipelineSource),
            library_versions(*_ENCODING_LIBRARIES),
            model_digest(PipelineSource(self._source().model), memo),
            self._options().model_dump(include=set(ENCODING_OPTIONS)),
        ]

    def _encodes_first(self) -> bool:
        return self.encode_prompts_first and bool(family_of(self.model).encoded)

    def _fps(self) -> int:
        return self.fps

    def _options(self) -> GenerationOptions:
        return GenerationOptions(**{name: getattr(self, name) for name in GenerationOptions.model_fields})

    def _source(self) -> PipelineSource:
        return PipelineSource.located(self.model, self.transformer_path)

    def _lora(self) -> Path | None:
        return None if self.lora_path is None else find_lora(self.lora_path).absolute()


@dataclass(frozen=True)
class PipelineMaker:
    """Makes videos with a pipeline (`generating.VideoMaker`).

    Attributes:
        source: which model.
        options: what is generated, and how the model fits on the device.
        lora: file of a LoRA.
        encoders: whether prompts are encoded here, and not read from files.
    """

    source: PipelineSource
    options: GenerationOptions
    lora: str | None
    encoders: bool

    def load(self, device: str) -> tuple[Any, str]:
        """The pipeline, with the LoRA, and its device."""
        lora = None if self.lora is None else (Path(self.lora), self.options.lora_weight)
        pipe = load_pipeline(self.source, device, self.options, encoders=self.encoders, lora=lora)
        check_arguments(type(pipe), family_of(self.source.model), self.options)
        return pipe, device

    def make(self, unit: VideoUnit, state: tuple[Any, str]) -> Made:
        """A video of the unit's prompt and seed alone."""
        pipe, device = state
        encoded = None if unit.encoded is None else read_encoded(unit.encoded)
        frames = generate(
            pipe, family_of(self.source.model), self.options, unit.seed, prompt=unit.prompt, encoded=encoded
        )
        peak = peak_memory(device)
        return Made(frames, {} if peak is None else {"peak_memory_gb": peak / 1e9})
