"""VBench on the workers of a job: generated videos scored in up to sixteen dimensions."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.errors import UserError, did_you_mean
from raysandbox.core.keys import DigestMemo
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.evaluators._vbench.cache import ResultCache
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS
from raysandbox.evaluators._vbench.environment import ADVICE, Environment, inspect_environment, lacking, modules_of
from raysandbox.evaluators._vbench.outputs import write_outputs
from raysandbox.evaluators._vbench.scores import Totals, score_of, totals_of
from raysandbox.evaluators._vbench.shards import ClipKeys, score_clips
from raysandbox.evaluators._vbench.suite import (
    VIDEOS_PER_PROMPT,
    Asked,
    Clip,
    custom_clips,
    read_prompts,
    standard_clips,
)
from raysandbox.evaluators._vbench.worker import ShardWork
from raysandbox.evaluators.base import DataEvaluator
from raysandbox.provision.environments import interpreter
from raysandbox.provision.weights import WeightFile, files_of, missing, missing_message, root_of

__all__ = ["VbenchVideoEvaluator"]

logger = logging.getLogger(__name__)

_COMPONENT = "vbench_video_evaluator"
_ENVIRONMENT = "vbench"
# Where libraries look for model files, if not below the home folder.
_PLACES = ("TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE")


@register(_COMPONENT)
class VbenchVideoEvaluator(DataEvaluator):
    """Scores generated videos with VBench; the result is the mean of the raw scores of the dimensions.

    The job's `resources` say on how many workers and GPUs. Results of single videos are kept by
    content, so that a second evaluation scores new videos only.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "videos_path": "./outputs/demo/generated_videos",
        "output_path": "./outputs/demo/vbench",
        "eval_name": "demo",
        "dimension_list": ["temporal_flickering", "motion_smoothness"],
    }

    # Neither model files nor VBench's environment are in a job's key; the results are kept by them.
    keeps_own_results: ClassVar[bool] = True

    videos_path: InputPath = Field(description="folder of the videos, PROMPT-0.mp4 to PROMPT-4.mp4 for each prompt")
    output_path: OutputPath = Field(description="folder for the results")
    eval_name: str = Field("vbench", pattern=r"^[^/]+$", description="what the names of the result files begin with")
    dimension_list: list[str] = Field(
        [], description="dimensions to score in; by default all that the mode and the environment have"
    )
    mode: Literal["vbench_standard", "custom_input"] = Field(
        "vbench_standard",
        description="videos of the suite's prompts; or any videos, whose names are taken for their prompts",
    )
    full_json_dir: InputPath | None = Field(
        None, description="prompt information (JSON) of the standard mode; by default the suite's, within VBench"
    )
    env: str | None = Field(
        None, description="name of an isolated environment, or path of an interpreter, that holds VBench: 'vbench'"
    )
    shard_size: int = Field(16, ge=1, description="videos that a worker scores in one call, and again when it is lost")
    load_ckpt_from_local: bool = Field(
        False, description="of the original; model files are always local: `raysandbox weights fetch`"
    )
    env_name: str | None = Field(None, description="of the original: the same as env")
    env_manager: str | None = Field(None, description="of the original; has no meaning here")
    env_params: Any = Field(None, description="of the original; has no meaning here")
    num_gpus: int | None = Field(
        None, ge=1, description="workers, a GPU each where the cluster has as many, if the job's `resources` do not say"
    )

    @field_validator("dimension_list")
    @classmethod
    def _known(cls, dimensions: list[str]) -> list[str]:
        for name in dimensions:
            if name not in DIMENSIONS:
                hint = did_you_mean(name, DIMENSIONS) or f"known: {', '.join(DIMENSIONS)}"
                raise ValueError(f"unknown dimension '{name}'; {hint}")
        if len(set(dimensions)) < len(dimensions):
            raise ValueError("a dimension is named twice")
        return dimensions

    @model_validator(mode="after")
    def _fit(self) -> VbenchVideoEvaluator:
        refused = [name for name in self.dimension_list if DIMENSIONS[name].needs_suite]
        if self.mode == "custom_input" and refused:
            raise ValueError(
                f"{', '.join(refused)} can be scored on the suite's own prompts only: "
                f"remove from dimension_list, or set mode: vbench_standard"
            )
        return self

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The environment, when it is not built; dimensions that it cannot compute; model files that are not there."""
        found = {}
        env = _environment_of(raw)
        try:
            interpreter(env)
        except UserError as error:
            found["env_name" if raw.get("env_name") and not raw.get("env") else "env"] = str(error)
        named = raw.get("dimension_list") or _all_of(str(raw.get("mode", "vbench_standard")))
        parts = [name for name in DIMENSIONS if name in named] if isinstance(named, list) else []
        modules = modules_of(env)
        refused, packages = lacking(parts, modules) if modules is not None else ([], [])
        lacks = ""
        if raw.get("dimension_list") and refused:
            lacks = f"{', '.join(refused)}: the environment '{env}' lacks {', '.join(packages)}"
            lacks += f": {ADVICE}, or name other dimensions in dimension_list"
        else:  # the job leaves them out
            parts = [name for name in parts if name not in refused]
        message = "; ".join(filter(None, [lacks, missing_message(missing(_COMPONENT, parts), parts)]))
        return found | ({"dimension_list": message} if message else {})

    def evaluate(self, session: WorkSession) -> float:
        """Returns the mean of the raw scores; reports them with the leaderboard's sums.

        Raises:
            JobFailed: videos or dimensions are missing, videos cannot be scored, a score is not a number.
            UserError: the environment is not built, or lacks what a dimension needs.
        """
        self._warn_of_unused()
        environment = inspect_environment(interpreter(_environment_of(self.model_dump())))
        dimensions = self._dimensions(environment)
        clips, wanted = self._clips(environment, dimensions)
        results = self._results(session, environment, clips)
        scores = {dimension: score_of(dimension, results[dimension]) for dimension in dimensions}
        totals = totals_of(scores)
        mean_score = math.fsum(scores.values()) / len(scores)
        counts = {dimension: (len(clips[dimension]), wanted.get(dimension)) for dimension in scores}
        write_outputs(Path(self.output_path), self.eval_name, scores, totals, mean_score, results, counts)
        session.report(_metrics(scores, totals, mean_score))
        return mean_score

    def asked(self) -> Asked:
        """What is scored: the dimensions, and their prompts from the prompt information.

        Raises:
            UserError: the environment is not built, or lacks what a dimension needs; there is no such file.
        """
        environment = inspect_environment(interpreter(_environment_of(self.model_dump())))
        dimensions, source = self._dimensions(environment), self._prompt_file(environment)
        prompts = [prompt for prompt in read_prompts(source) if not set(prompt.dimensions).isdisjoint(dimensions)]
        return Asked(dimensions, prompts, str(source))

    def _prompt_file(self, environment: Environment) -> Path:
        return Path(self.full_json_dir) if self.full_json_dir else environment.prompts

    def _dimensions(self, environment: Environment) -> list[str]:
        """Those of `dimension_list`; by default all of the mode that the environment can compute.

        Raises:
            JobFailed: it cannot compute one that is named.
        """
        if self.dimension_list:
            environment.require(self.dimension_list)
            return self.dimension_list
        wanted = _all_of(self.mode)
        refused, packages = lacking(wanted, environment.modules)
        if refused:
            logger.warning(
                "dimension_list is not set and the environment of %s lacks %s: not scored are %s; %s",
                environment.python,
                ", ".join(packages),
                ", ".join(refused),
                ADVICE,
            )
        return [name for name in wanted if name not in refused]

    def _clips(
        self, environment: Environment, dimensions: Sequence[str]
    ) -> tuple[dict[str, list[Clip]], dict[str, int]]:
        """The videos of each dimension, and how many of them a suite wants."""
        folder = Path(self.videos_path)
        if self.mode == "custom_input":
            return custom_clips(folder, dimensions), {}
        source = self._prompt_file(environment)
        prompts = read_prompts(source)
        wanted = {
            dimension: VIDEOS_PER_PROMPT * sum(dimension in prompt.dimensions for prompt in prompts)
            for dimension in dimensions
        }
        return standard_clips(folder, prompts, dimensions, str(source)), wanted

    def _results(
        self, session: WorkSession, environment: Environment, clips: Mapping[str, Sequence[Clip]]
    ) -> dict[str, list[dict[str, Any]]]:
        memo = DigestMemo(session.cache_dir / "digests")
        weights = {
            dimension: [digest for file in files_of(_COMPONENT, [dimension]) for digest in _digests(file, memo)]
            for dimension in clips
        }
        return score_clips(
            clips,
            ClipKeys(memo, environment.versions, weights),
            ResultCache(session.cache_dir / "vbench", session.use_cache),
            session.workers,
            ShardWork(str(root_of("vbench")), {name: os.environ[name] for name in _PLACES if name in os.environ}),
            python=environment.python,
            shard_size=self.shard_size,
            num_workers=self.num_gpus,
        )

    def _warn_of_unused(self) -> None:
        unused = [name for name in ("env_manager", "env_params") if getattr(self, name) is not None]
        unused += ["env_name"] if self.env and self.env_name else []
        if unused:
            logger.warning(
                "%s: %s have no meaning here: `raysandbox env create` builds environments",
                _COMPONENT,
                ", ".join(unused),
            )


def _all_of(mode: str) -> list[str]:
    return [name for name, about in DIMENSIONS.items() if mode != "custom_input" or not about.needs_suite]


def _environment_of(raw: Mapping[str, Any]) -> str:
    """The name of the environment, or the path of the interpreter, that a configuration means."""
    return str(raw.get("env") or raw.get("env_name") or _ENVIRONMENT)


def _digests(file: WeightFile, memo: DigestMemo) -> list[str]:
    """Digests of a model file, or of what a folder must hold; Python leaves compiled code in it."""
    paths = [path for pattern in file.holds for path in sorted(file.target().glob(pattern))] or [file.target()]
    return [str(memo.of(path)) for path in paths]


def _metrics(scores: Mapping[str, float], totals: Totals, mean_score: float) -> dict[str, float]:
    sums = {"quality": totals.quality, "semantic": totals.semantic, "total": totals.total, "mean_score": mean_score}
    return {**scores, **{name: value for name, value in sums.items() if value is not None}}
