"""EasyAnimate's training by the original's nested keys: through diffusers, or by the original's script."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from raysandbox.core.component import InputPath, ModelPath, OutputPath
from raysandbox.core.errors import JobFailed
from raysandbox.core.keys import code_version
from raysandbox.core.registry import register
from raysandbox.core.runner import TrainSession, WorkSession
from raysandbox.executors._video.external.settings import (
    EXTERNAL_KEYS,
    IDLE_KEYS,
    BackendOptions,
    missing_environment,
    surroundings_of,
)
from raysandbox.executors._video.external.training import prepare_training, train_external
from raysandbox.executors._video.original_keys import (
    Alias,
    Section,
    Translation,
    dtype_of,
    named,
    precision_of,
    with_keys_of,
)
from raysandbox.executors.base import ModelTrainer
from raysandbox.executors.train.diffusers import DiffusersTrainer

__all__ = ["EasyAnimateTrainer"]

logger = logging.getLogger(__name__)

_MODEL, _DATA = ("train", "model_path"), ("train", "dataset_path")
_TRAINING, _SAVING = ("train", "training_config"), ("train", "saving_config")
_KEYS = Translation(
    DiffusersTrainer,
    {
        (*_MODEL, "pretrained_model_name_or_path"): Alias(("model",)),
        (*_MODEL, "transformer_path"): Alias(("transformer_path",)),
        (*_DATA, "dataset_name"): Alias(("dataset_root",), lambda root: root or None),
        (*_DATA, "dataset_meta_name"): Alias(("dataset",)),
        (*_TRAINING, "sample_size"): Alias(("height", "width")),
        (*_TRAINING, "mixed_precision"): Alias(("dtype",), dtype_of),
        (*_TRAINING, "batch_size_per_gpu"): Alias(("batch_size",)),
        (*_TRAINING, "gradient_accumulation_steps"): Alias(("gradient_accumulation_steps",)),
        (*_TRAINING, "num_train_epochs"): Alias(("epochs",)),
        (*_TRAINING, "seed"): Alias(("seed",)),
        (*_SAVING, "output_dir"): Alias(("output_dir",)),
    },
    (_TRAINING,),
)
# What the original's script can be told: flat key → its name there.
_EXTERNAL = {
    "model": "pretrained_model_name_or_path",
    "transformer_path": "transformer_path",
    "dataset": "dataset_meta_name",
    "dataset_root": "dataset_name",
    "height": "sample_size",
    "batch_size": "batch_size_per_gpu",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "epochs": "num_train_epochs",
    "max_steps": "max_steps",
    "num_frames": "num_frames",
    "stride": "stride",
    "learning_rate": "learning_rate",
    "checkpoint_every": "checkpoint_every",
    "seed": "seed",
}
_REFUSED = {
    key: "has no meaning for backend: external, whose script decides it (remove it, or say it in `script_arguments`)"
    for key in DiffusersTrainer.model_fields
    if key not in {*_EXTERNAL, "width", "dtype", "output_dir"}
}
# The original's script takes the clips' readers, and names its tracker's run.
_TRACKER = ("project_name", "experiment_name")
_IDLE = {"diffusers": ((*_TRAINING, "dataloader_num_workers"), ("train", "tracker_config")), "external": ()}


class ModelPaths(Section):
    """`train.model_path`."""

    pretrained_model_name_or_path: ModelPath | None = Field(
        None, description="folder of the model in diffusers' layout, or its id on the Hugging Face hub"
    )
    transformer_path: InputPath | None = Field(None, description="other weights for the transformer")


class DatasetPaths(Section):
    """`train.dataset_path`."""

    dataset_name: str | None = Field(None, description="where relative paths of clips start; may be empty")
    dataset_meta_name: InputPath | None = Field(None, description="JSON list of {file_path, text, type}")


class _TrainingConfig(Section):
    """`train.training_config`; also holds our own keys."""

    sample_size: int | None = Field(None, description="height and width in pixels")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = Field(None, description="no: fp32")
    batch_size_per_gpu: int | None = Field(None, description="clips of a worker at once")
    gradient_accumulation_steps: int | None = Field(None, description="batches of a worker in a step")
    num_train_epochs: int | None = Field(None, description="passes over the clips")
    dataloader_num_workers: int | None = Field(
        None, ge=0, description="external: processes that read clips; else clips are encoded before"
    )
    seed: int | None = Field(None, description="of everything that is drawn")


class SavingConfig(Section):
    """`train.saving_config`."""

    output_dir: OutputPath | None = Field(None, description="where checkpoint-{step}.safetensors appears")


if TYPE_CHECKING:  # with the fields of DiffusersTrainer

    class TrainingConfig(_TrainingConfig): ...

    class _Base(ModelTrainer): ...

else:
    TrainingConfig = with_keys_of(DiffusersTrainer, _TrainingConfig, "TrainingConfig", __name__)
    _Base = with_keys_of(DiffusersTrainer, ModelTrainer, "_Base", __name__)


class Train(Section):
    """`train`."""

    model_path: ModelPaths = Field(ModelPaths.model_validate({}), description="the model")
    dataset_path: DatasetPaths = Field(DatasetPaths.model_validate({}), description="the clips")
    training_config: TrainingConfig = Field(TrainingConfig.model_validate({}), description="how it is trained")
    saving_config: SavingConfig = Field(SavingConfig.model_validate({}), description="where checkpoints go")
    tracker_config: dict[str, Any] | None = Field(None, description="of the original; the run's `project_name` counts")


@register("easyanimate")
class EasyAnimateTrainer(BackendOptions, _Base):
    """Trains a LoRA for EasyAnimate: the original's keys, and those of `diffusers`.

    The keys of `diffusers` stand below `train.training_config` or at the top level; one that is given twice, in our
    words and in the original's, must have one value.

    `backend: diffusers` is the trainer `diffusers`. `backend: external` runs the original's own script for
    EasyAnimate v1 in an environment of its own, in one worker, on the GPUs that its `resources` ask for.
    """

    distributed: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "train": {
            "model_path": {"pretrained_model_name_or_path": "alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers"},
            "dataset_path": {"dataset_name": "", "dataset_meta_name": "./outputs/demo/clips_ea_fmt.json"},
            "training_config": {
                "sample_size": 256,
                "mixed_precision": "bf16",
                "batch_size_per_gpu": 8,
                "gradient_accumulation_steps": 1,
                "num_train_epochs": 1,
                "seed": 42,
            },
            "saving_config": {"output_dir": "./outputs/demo/lora"},
        },
    }

    model_config = ConfigDict(serialize_by_alias=True)

    settings: Train = Field(Train.model_validate({}), alias="train", description="the original's keys")
    trainer_name: str | None = Field(None, description="of the original; has no meaning here")

    @model_validator(mode="after")
    def _fits(self) -> EasyAnimateTrainer:
        raw = self._raw()
        if self.backend == "diffusers":
            _KEYS.build(raw, refused=dict.fromkeys(EXTERNAL_KEYS, "is a key of backend: external"))
            return self
        values, _ = _KEYS.flat(raw)
        refused = dict(_REFUSED)
        if values.get("height") != values.get("width"):
            refused["width"] = "must be as height: the script trains on squares"
        _KEYS.check(raw, ("model", "dataset", "output_dir"), refused)
        return self

    @classmethod
    def needed_extras(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """Those of diffusers, unless a script of another environment works."""
        return () if raw.get("backend") == "external" else ("video",)

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """What the flat component depends on, and its code; or the environment of the script."""
        values, _ = _KEYS.flat(raw)
        own = DiffusersTrainer.surroundings(values)  # the clips
        if raw.get("backend") == "external":
            return [own, surroundings_of(raw)]
        return [own, code_version(DiffusersTrainer)]

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, or the script's environment, by the key that names it."""
        if raw.get("backend") == "external":
            return missing_environment(raw)
        return _KEYS.missing_weights(raw)

    def prepare(self, session: WorkSession) -> Any:
        """Encodes the clips; or looks for the script and its environment.

        Raises:
            UserError: an input is not there, or does not fit.
        """
        raw = self._raw()
        tracker = self.settings.tracker_config or {}
        unknown = [("train", "tracker_config", key) for key in tracker if key not in _TRACKER]
        idle = named(raw, [*[(key,) for key in IDLE_KEYS[self.backend]], *(_IDLE[self.backend] or unknown)])
        if idle:
            logger.warning("easyanimate: no meaning here: %s", ", ".join(idle))
        if self.backend == "diffusers":
            return self._flat().prepare(session)
        values, _ = _KEYS.flat(raw)
        given = {name: values.get(key) for key, name in _EXTERNAL.items()}
        given |= {
            "mixed_precision": precision_of(values.get("dtype")),
            "dataloader_num_workers": self.settings.training_config.dataloader_num_workers,
            **{key: tracker[key] for key in _TRACKER if key in tracker},
        }
        return prepare_training(self, given, values["output_dir"], allow_user_code=session.allow_user_code)

    def train(self, session: TrainSession) -> str:
        """Trains and returns `output_dir`.

        Raises:
            JobFailed: the training did not end well.
        """
        if self.backend == "diffusers":
            return self._flat().train(session)
        if session.world_size > 1:
            raise JobFailed(
                "resources.num_workers: the script of backend: external trains in one worker; "
                "for several GPUs set num_workers: 1 and num_gpus to their number"
            )
        train_external(session.prepared, session)
        return _KEYS.flat(self._raw())[0]["output_dir"]

    def _flat(self) -> DiffusersTrainer:
        return _KEYS.build(self._raw())

    def _raw(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True)
