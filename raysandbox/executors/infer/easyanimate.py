"""EasyAnimate's generation by the original's nested keys: through diffusers, or by the original's script."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from raysandbox.core.component import InputPath, ModelPath, OutputPath
from raysandbox.core.errors import UserError
from raysandbox.core.keys import code_version
from raysandbox.core.registry import register
from raysandbox.core.runner import UnitWork, Workers, WorkSession
from raysandbox.executors._video.external.generation import external_generation
from raysandbox.executors._video.external.settings import (
    EXTERNAL_KEYS,
    IDLE_KEYS,
    BackendOptions,
    missing_environment,
    surroundings_of,
)
from raysandbox.executors._video.generation.prompts import read_prompts
from raysandbox.executors._video.models.lora import find_lora
from raysandbox.executors._video.original_keys import (
    Alias,
    Section,
    Translation,
    dtype_of,
    named,
    precision_of,
    with_keys_of,
)
from raysandbox.executors.base import ModelInference
from raysandbox.executors.infer._videos import refuse_own_folder
from raysandbox.executors.infer.diffusers import DiffusersInference

__all__ = ["EasyAnimateInference"]

logger = logging.getLogger(__name__)

_MODEL, _INFER, _SAVING = ("train", "model_path"), ("train", "infer_config"), ("train", "saving_config")
_KEYS = Translation(
    DiffusersInference,
    {
        (*_MODEL, "pretrained_model_name_or_path"): Alias(("model",)),
        (*_MODEL, "transformer_path"): Alias(("transformer_path",)),
        (*_MODEL, "lora_path"): Alias(("lora_path",)),
        (*_INFER, "image_size"): Alias(("height", "width")),
        (*_INFER, "prompt_info_path"): Alias(("prompts",)),
        (*_INFER, "mixed_precision"): Alias(("dtype",), dtype_of),
        (*_INFER, "video_num_per_prompt"): Alias(("videos_per_prompt",)),
        (*_INFER, "seed"): Alias(("seed",)),
        (*_SAVING, "output_video_dir"): Alias(("output_dir",)),
    },
    (_INFER,),
    # Of the original's script.
    {"num_inference_steps": 30, "guidance_scale": 6.0, "fps": 12, "lora_weight": 0.55},
)
# What the original's script can be told: flat key → its name there.
_EXTERNAL = {
    "model": "pretrained_model_name_or_path",
    "transformer_path": "transformer_path",
    "lora_path": "lora_path",
    "height": "image_size",
    "videos_per_prompt": "video_num_per_prompt",
    "seed": "seed",
}
_OURS_TOO = {"prompts", "prompt_key", "prompt_limit", "output_dir", "contact_sheet", "compare_with", "dtype", "width"}
_REFUSED = {
    key: "has no meaning for backend: external, whose script decides it (remove it, or say it in `script_arguments`)"
    for key in DiffusersInference.model_fields
    if key not in {*_EXTERNAL, *_OURS_TOO, *EXTERNAL_KEYS}
}


class ModelPaths(Section):
    """`train.model_path`."""

    pretrained_model_name_or_path: ModelPath | None = Field(
        None, description="folder of the model in diffusers' layout, or its id on the Hugging Face hub"
    )
    transformer_path: InputPath | None = Field(None, description="other weights for the transformer")
    lora_path: InputPath | None = Field(None, description="LoRA: a file, or a folder with checkpoints")


class _InferConfig(Section):
    """`train.infer_config`; also holds our own keys."""

    image_size: int | None = Field(None, description="height and width in pixels")
    prompt_info_path: InputPath | None = Field(None, description="prompt information (JSON), as of VBench")
    gpu_num: int | None = Field(
        None, ge=1, description="workers, a GPU each, where the job's `resources` do not say; null: all GPUs"
    )
    batch_size: int | None = Field(
        None, ge=1, description="external: videos at once; else one at a time, which makes them reproducible"
    )
    mixed_precision: Literal["no", "fp16", "bf16"] | None = Field(None, description="no: fp32")
    video_num_per_prompt: int | None = Field(None, ge=1, description="videos of each prompt")
    seed: int | None = Field(None, ge=0, description="of the generation")


class SavingConfig(Section):
    """`train.saving_config`."""

    output_video_dir: OutputPath | None = Field(None, description="folder of the videos")


if TYPE_CHECKING:  # with the fields of DiffusersInference

    class InferConfig(_InferConfig): ...

    class _Base(ModelInference): ...

else:
    InferConfig = with_keys_of(DiffusersInference, _InferConfig, "InferConfig", __name__)
    _Base = with_keys_of(DiffusersInference, ModelInference, "_Base", __name__)


class Train(Section):
    """`train`: the original's name, also for an inference."""

    model_path: ModelPaths = Field(ModelPaths.model_validate({}), description="the model")
    infer_config: InferConfig = Field(InferConfig.model_validate({}), description="what is generated")
    saving_config: SavingConfig = Field(SavingConfig.model_validate({}), description="where the videos go")
    tracker_config: dict[str, Any] | None = Field(None, description="of the original; the run's `project_name` counts")


@register("easyanimate")
class EasyAnimateInference(BackendOptions, _Base):
    """Generates videos with EasyAnimate: the original's keys, and those of `diffusers`.

    The keys of `diffusers` stand below `train.infer_config` or at the top level; one that is given twice, in our
    words and in the original's, must have one value.

    `backend: diffusers` is the inference `diffusers` with the defaults of the original's script (30 steps,
    guidance 6, LoRA weight 0.55). `backend: external` runs the original's own script for EasyAnimate v1 in
    an environment of its own, on shards of the prompts.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "train": {
            "model_path": {
                "pretrained_model_name_or_path": "alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers",
                "lora_path": "./outputs/demo/lora",
            },
            "infer_config": {
                "image_size": 256,
                "prompt_info_path": "./VBench_full_info.json",
                "mixed_precision": "bf16",
                "video_num_per_prompt": 5,
                "seed": 43,
            },
            "saving_config": {"output_video_dir": "./outputs/demo/videos"},
        },
    }

    kept_artifacts: ClassVar[frozenset[str]] = DiffusersInference.kept_artifacts

    train: Train = Field(Train.model_validate({}), description="the original's keys")
    infer_name: str | None = Field(None, description="of the original; has no meaning here")
    stall_timeout_s: float = Field(
        1800,
        gt=0,
        description="external: seconds without a line of output after which a script is ended; diffusers: as of the "
        "inference `diffusers`, where it is never unless it is given",
    )

    @model_validator(mode="after")
    def _fits(self) -> EasyAnimateInference:
        raw = self._raw()
        if self.backend == "diffusers":
            external = [key for key in EXTERNAL_KEYS if key not in DiffusersInference.model_fields]
            _KEYS.build(raw, refused=dict.fromkeys(external, "is a key of backend: external"))
            return self
        values, _ = _KEYS.flat(raw)
        refused = dict(_REFUSED)
        if values.get("height") != values.get("width"):
            refused["width"] = "must be as height: the script makes square videos"
        if isinstance(values.get("videos_per_prompt"), dict):
            refused["videos_per_prompt"] = "must be one number for backend: external"
        _KEYS.check(raw, ("model", "prompts", "output_dir"), refused)
        refuse_own_folder(values.get("compare_with"), values.get("output_dir"))
        return self

    @classmethod
    def needed_extras(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """Those of diffusers, unless a script of another environment works."""
        return () if raw.get("backend") == "external" else ("video",)

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """What the flat component depends on, and its code; or the environment of the script."""
        if raw.get("backend") == "external":
            return surroundings_of(raw)
        return [code_version(DiffusersInference), DiffusersInference.surroundings(_KEYS.flat(raw)[0])]

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, or the script's environment, by the key that names it."""
        if raw.get("backend") == "external":
            return missing_environment(raw)
        return _KEYS.missing_weights(raw)

    def infer(self, session: WorkSession) -> str:
        """Generates the videos that are not there yet; returns their folder.

        Raises:
            UserError: an input is not there, or does not fit.
            JobFailed: videos are missing.
        """
        self._warn_of_idle_keys()
        if self.backend == "external":
            return self._external(session)
        inference: DiffusersInference = _KEYS.build(self._raw())
        number = self.train.infer_config.gpu_num
        return inference.infer(_limited(session, number) if number else session)

    def _raw(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True)

    def _warn_of_idle_keys(self) -> None:
        idle = named(self._raw(), [(key,) for key in IDLE_KEYS[self.backend]] + [("train", "tracker_config")])
        if self.backend == "diffusers" and (self.train.infer_config.batch_size or 1) > 1:
            idle.append("train.infer_config.batch_size (videos are made one by one, which makes them reproducible)")
        if idle:
            logger.warning("easyanimate: no meaning here: %s", ", ".join(idle))

    def _external(self, session: WorkSession) -> str:
        values, _ = _KEYS.flat(self._raw())
        config = self.train.infer_config
        given = {name: values.get(key) for key, name in _EXTERNAL.items()}
        given |= {"mixed_precision": precision_of(values.get("dtype")), "batch_size": config.batch_size}
        earlier = _folder_of(values.get("compare_with"))
        if given["lora_path"]:
            given["lora_path"] = str(find_lora(given["lora_path"]))
        prompts = read_prompts(
            Path(values["prompts"]).expanduser(), values.get("prompt_key"), values.get("prompt_limit")
        )
        limit = values.get("stall_timeout_s")  # may stand below train.infer_config
        options = self if limit is None else self.model_copy(update={"stall_timeout_s": limit})
        made = external_generation(
            options, given, prompts.texts, Path(values["output_dir"]).expanduser(), session, config.gpu_num
        )
        if values.get("contact_sheet") is not False:
            _show(session, made, earlier)
        return values["output_dir"]


@dataclasses.dataclass(frozen=True)
class _Limited:
    """Workers of which there are so many, where the job's `resources` do not say (`core.runner.Workers`)."""

    workers: Workers
    number: int

    def map(self, work: UnitWork, units: Sequence[Any], **options: Any) -> Generator[tuple[int, Any], None, None]:
        """Does every unit."""
        return self.workers.map(work, units, **{"num_workers": self.number, **options})


def _limited(session: WorkSession, number: int) -> WorkSession:
    """A session with limited workers."""
    return cast(WorkSession, dataclasses.replace(cast(Any, session), workers=_Limited(session.workers, number)))


def _folder_of(compare_with: str | None) -> Path | None:
    if not compare_with:
        return None
    folder = Path(compare_with).expanduser()
    if not folder.is_dir():
        raise UserError(f"compare_with: there is no folder {folder} (correct the path, or leave it out)")
    return folder


def _show(session: WorkSession, made: Mapping[str, Sequence[Path]], earlier: Path | None) -> None:
    """Writes the contact sheet and the previews."""
    from raysandbox.executors._video.generation.contact_sheet import overview

    before = None
    if earlier is not None:
        beside = {path: earlier / path.name for paths in made.values() for path in paths}
        before = [[beside[path] if beside[path].is_file() else None for path in paths] for paths in made.values()]
    overview(session.artifacts, list(made.items()), before)
