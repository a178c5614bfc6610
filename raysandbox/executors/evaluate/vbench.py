"""VBench of a text-to-video model: generates the videos that it asks for, and scores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.files import atomic_write
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.evaluators.vbench_video_evaluator import VbenchVideoEvaluator
from raysandbox.executors.evaluate._generated import GeneratingEvaluator

__all__ = ["Vbench"]


class _Scoring(VbenchVideoEvaluator):
    """Keys of the data evaluator `vbench_video_evaluator`; the videos are those that are generated."""

    videos_path: InputPath = Field("", description="leave it out: the videos are those of `generation`")
    output_path: OutputPath = Field("", description="folder for the results; by default among the job's artefacts")

    @model_validator(mode="after")
    def _has_no_videos(self) -> _Scoring:
        if self.videos_path:
            raise ValueError("videos_path: `generation` makes the videos; remove it (its key output_dir says where)")
        return self


@register("vbench")
class Vbench(GeneratingEvaluator):
    """Scores a text-to-video model, with or without a LoRA, by VBench: generates and evaluates in one job.

    The prompts are those of the dimensions that are scored, unless `generation` names others. The job's
    `resources` hold for both parts.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "generation": {"model": "alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers", "lora_path": "./outputs/demo/lora"},
        "evaluation": {"dimension_list": ["temporal_flickering", "motion_smoothness"]},
    }

    evaluation: _Scoring = Field(
        description="how they are scored: keys of `vbench_video_evaluator` without videos_path"
    )

    def evaluate(self, session: WorkSession) -> float:
        """Returns the mean of the dimensions' raw scores; both parts report their metrics.

        Raises:
            JobFailed: videos could not be made or scored; where the prompts could not be, nothing was generated.
            UserError: VBench's environment is not built, or lacks what a dimension needs; nothing was generated.
        """
        asked = self.evaluation.asked()
        wanted = [{"prompt_en": each.text, "dimension": each.dimensions} for each in asked.prompts]
        chosen = session.artifacts / "prompts.json"
        atomic_write(chosen, json.dumps(wanted, ensure_ascii=False, indent=2) + "\n")
        prompts = self.generation.prompts or str(chosen)
        generation = self.generation.model_copy(update={"prompts": prompts})
        if self.evaluation.mode == "vbench_standard":  # the other one scores whatever is made
            asked.require(generation.texts(), f"generation.prompts: {prompts}")
        videos = generation.infer(session)
        output_path = self.evaluation.output_path or str(session.artifacts / "vbench")
        places = {"videos_path": str(videos), "output_path": str(Path(output_path))}
        return self.evaluation.model_copy(update=places).evaluate(session)
