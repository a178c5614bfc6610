"""A training by the original's script: one call in the worker that holds the GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.runner import TrainSession
from raysandbox.executors._video.external.losses import LossReader
from raysandbox.executors._video.external.settings import BackendOptions, ExternalScript, absolute, external_script
from raysandbox.executors.train._staging import staged

__all__ = ["PreparedTraining", "prepare_training", "train_external"]

_SCRIPT = "train_lora.py"
# What the original's wrapper passes to its script, less what belongs to its own tracker and samples.
_OPTIONS = (
    "--config_path=config/easyanimate_video_motion_module_v1.yaml",
    "--pretrained_model_name_or_path={pretrained_model_name_or_path}",
    "--transformer_path={transformer_path}",
    "--train_data_dir={dataset_name}",
    "--train_data_meta={dataset_meta_name}",
    "--sample_size={sample_size}",
    "--sample_n_frames={num_frames}",
    "--sample_stride={stride}",
    "--train_batch_size={batch_size_per_gpu}",
    "--gradient_accumulation_steps={gradient_accumulation_steps}",
    "--num_train_epochs={num_train_epochs}",
    "--max_train_steps={max_steps}",
    "--dataloader_num_workers={dataloader_num_workers}",
    "--checkpointing_steps={checkpoint_every}",
    "--output_dir={output_dir}",
    "--learning_rate={learning_rate}",
    "--seed={seed}",
    "--enable_xformers_memory_efficient_attention",
    "--gradient_checkpointing",
    "--adam_weight_decay=3e-2",
    "--adam_epsilon=1e-10",
    "--vae_mini_batch=1",
)
_POSITIONS = (
    *("{pretrained_model_name_or_path}", "{transformer_path}", "{dataset_name}", "{dataset_meta_name}"),
    *("{sample_size}", "{mixed_precision}", "{batch_size_per_gpu}", "{gradient_accumulation_steps}"),
    *("{num_train_epochs}", "{dataloader_num_workers}", "{seed}", "{output_dir}"),
    *("{project_name}", "{experiment_name}"),
)
_DEFAULTS: Mapping[str, Any] = {
    "transformer_path": None,
    "dataset_name": "",
    "sample_size": 256,
    "mixed_precision": "bf16",
    "batch_size_per_gpu": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1,
    "max_steps": None,
    "dataloader_num_workers": 8,
    "seed": 42,
    "num_frames": 16,
    "stride": 2,
    "learning_rate": 2e-5,
    "checkpoint_every": 1000,
    "project_name": "raysandbox",
    "experiment_name": "train",
}


@dataclass(frozen=True)
class PreparedTraining:
    """What the worker needs.

    Attributes:
        script: the script.
        values: its values, all but `output_dir`.
        output: where the checkpoints go, absolute: a worker's current directory may be another.
    """

    script: ExternalScript
    values: Mapping[str, Any]
    output: Path


def prepare_training(
    options: BackendOptions, given: Mapping[str, Any], output_dir: str, *, allow_user_code: bool
) -> PreparedTraining:
    """Finds the script and completes its values.

    Args:
        options: of the external backend.
        given: values by the original's names; those that are None get the original's.
        output_dir: where the checkpoints go.
        allow_user_code: whether any checkout's code may run.

    Raises:
        UserError: the script, its checkout or its environment is not there.
    """
    values = {**_DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    for key in ("pretrained_model_name_or_path", "transformer_path", "dataset_name", "dataset_meta_name"):
        values[key] = absolute(values[key])
    script = external_script(
        options,
        script=_SCRIPT,
        launcher="accelerate",
        arguments={".py": _OPTIONS, ".sh": _POSITIONS},
        values={**values, "output_dir": ""},
        allow_user_code=allow_user_code,
    )
    return PreparedTraining(script, values, Path(output_dir).expanduser().absolute())


def train_external(prepared: PreparedTraining, session: TrainSession) -> None:
    """Trains; the checkpoints appear in the output folder when the script has ended well.

    Raises:
        JobFailed: it did not end well, left no whole checkpoint, or its last loss is not a number.
    """
    reader = LossReader(session.report)
    with staged(prepared.output) as (folder, summary):
        what = f"{prepared.script.script} of {prepared.script.source}"
        try:
            prepared.script.run({**prepared.values, "output_dir": str(folder)}, reader.read, what)
        finally:
            reader.finish()
        newest = _newest_checkpoint(folder, what)
        if not reader.is_finite:
            raise JobFailed(f"{what}: its last loss is {reader.last}, in step {reader.step}")
        summary.update(checkpoint=newest.name, losses=reader.losses, last_loss=reader.last)


def _newest_checkpoint(folder: Path, what: str) -> Path:
    """The checkpoint of the highest step; it must be whole."""
    steps = {
        int(number): path
        for path in folder.glob("checkpoint-*.safetensors")
        if (number := path.stem.removeprefix("checkpoint-")).isdecimal()
    }
    if not steps:
        found = ", ".join(sorted(os.listdir(folder))[:5]) or "nothing"
        raise JobFailed(f"{what} ended with status 0, but wrote no checkpoint-STEP.safetensors ({folder} has {found})")
    newest = steps[max(steps)]
    if not _is_whole(newest):
        raise JobFailed(f"{what}: {newest} is no whole safetensors file")
    return newest


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says (8 bytes of length, the header, the tensors)."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            header = json.loads(opened.read(min(length, file.stat().st_size)))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return bool(ends) and file.stat().st_size == 8 + length + max(ends)
