"""Inception metrics of a text-to-video model: generates videos, and compares them with real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from raysandbox.core.component import InputPath
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.evaluators._inception.metrics import METRICS
from raysandbox.evaluators.video_inception_evaluator import VideoInceptionEvaluator
from raysandbox.executors.evaluate._generated import GeneratingEvaluator

__all__ = ["Inception"]


class _Comparing(VideoInceptionEvaluator):
    """Keys of the data evaluator `video_inception_evaluator`; the fake videos are those that are generated."""

    fake_data_path: InputPath = Field("", description="leave it out: the videos are those of `generation`")

    @model_validator(mode="after")
    def _has_no_videos(self) -> _Comparing:
        if self.fake_data_path or self.fake_mm_dir:
            raise ValueError("fake_data_path, fake_mm_dir: `generation` makes the videos; remove them")
        return self


@register("inception")
class Inception(GeneratingEvaluator):
    """Scores a text-to-video model, with or without a LoRA, by an inception metric such as FVD.

    Generates the videos of `generation.prompts` and compares them with real ones, in one job, whose
    `resources` hold for both parts.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "generation": {
            "model": "alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers",
            "lora_path": "./outputs/demo/lora",
            "prompts": "./data/prompts.txt",
        },
        "evaluation": {
            "metric": "fvd2048_16f",
            "real_data_path": "./data/real.jsonl",
            "detector_path": "./models/i3d_torchscript.pt",
        },
    }

    evaluation: _Comparing = Field(
        description="how they are compared: keys of `video_inception_evaluator` without fake_data_path, fake_mm_dir"
    )

    @model_validator(mode="after")
    def _has_prompts(self) -> Inception:
        if not self.generation.prompts:
            raise ValueError("generation.prompts is missing: what the videos are made of")
        return self

    @model_validator(mode="after")
    def _has_clips(self) -> Inception:
        frames, metric = self.generation.num_frames, self.evaluation.metric
        if frames is not None and frames < METRICS[metric].span:
            raise ValueError(
                f"generation.num_frames is {frames}: {metric} looks at clips of {METRICS[metric].span} frames, "
                f"so that no video could be measured"
            )
        return self

    def evaluate(self, session: WorkSession) -> dict[str, float]:
        """Returns the scores by name; both parts report their metrics.

        Raises:
            JobFailed: videos could not be made or compared; where the real ones cannot be, nothing was generated.
            MissingExtraError: a package is not installed; nothing was generated.
        """
        self.evaluation.require()
        self.evaluation.require_real(session)
        self.generation.infer(session)
        generated = str(session.artifacts / "videos.jsonl")  # the inference's list of what it made
        return self.evaluation.model_copy(update={"fake_data_path": generated}).evaluate(session)
