"""Training with ModelScope's trainers: the `modelscope` type of the original's configurations."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from raysandbox.core.component import InputPath, ModelPath, OutputPath
from raysandbox.core.errors import JobFailed, MissingExtraError
from raysandbox.core.registry import register
from raysandbox.core.runner import Report, TrainSession
from raysandbox.executors.base import ModelTrainer
from raysandbox.executors.train._megatron_shim import import_plain_gpt3
from raysandbox.executors.train._modelscope_hub import MODELSCOPE_FAULTS, read_configuration, resolve_model, without_hub
from raysandbox.executors.train._rows import read_columns
from raysandbox.executors.train._staging import staged

__all__ = ["LossReporter", "ModelscopeTrainer", "TrainSettings"]

logger = logging.getLogger(__name__)

OUTPUT_DIR = "output"  # ModelScope's name for the trained model below work_dir


class _Open(BaseModel):
    """A part of ModelScope's configuration: keys that are not declared pass through to it."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class LrScheduler(_Open):
    """A scheduler of torch, by class name, with its arguments."""

    type: str = Field(description="class name, e.g. StepLR, ConstantLR, CosineAnnealingLR")
    options: dict[str, Any] = Field(default_factory=dict, description="of ModelScope: by_epoch, warmup")


class Optimizer(_Open):
    """An optimizer of torch, by class name, with its arguments."""

    type: str = Field("AdamW", description="class name")
    lr: float = Field(gt=0, description="learning rate")
    options: dict[str, Any] = Field(default_factory=dict, description="of ModelScope: cumulative_iters, grad_clip")


class Dataloader(_Open):
    """How examples become batches."""

    batch_size_per_gpu: int = Field(2, ge=1, description="examples in a batch")
    workers_per_gpu: int = Field(0, ge=0, description="processes that prepare batches; 0: the training's own")


class TrainSettings(_Open):
    """The `train` section of ModelScope's configuration; a key left out keeps the model's own value."""

    max_epochs: int | None = Field(default=None, ge=1, description="passes over the data; 2 when the model has none")
    lr_scheduler: LrScheduler | None = Field(default=None, description="constant rate when the model has none")
    optimizer: Optimizer | None = Field(default=None, description="AdamW at 3e-4 when the model has none")
    dataloader: Dataloader | None = Field(default=None, description="batches of 2 when the model has none")
    hooks: list[dict[str, Any]] | None = Field(
        default=None, description="ModelScope hooks, [{type: TextLoggerHook, …}]"
    )


_VANISHED = 1e-3  # share of the first learning rate below which a model hardly learns

# Set where neither the configuration nor the model has the key.
_DEFAULTS: Mapping[str, Any] = {
    "max_epochs": 2,
    "lr_scheduler": {"type": "ConstantLR", "factor": 1.0},
    "optimizer": {"type": "AdamW", "lr": 3e-4},
    "dataloader": {"batch_size_per_gpu": 2, "workers_per_gpu": 0},
    "hooks": [
        {"type": "CheckpointHook", "interval": 1},
        # ModelScope's own default ignores the last iterations: a short training would log nothing.
        {"type": "TextLoggerHook", "interval": 10, "ignore_last": False},
        {"type": "IterTimerHook"},
    ],
}


@register("modelscope")
class ModelscopeTrainer(ModelTrainer):
    """Trains a ModelScope model, e.g. fine-tunes its GPT-3, on one device."""

    model_config = ConfigDict(serialize_by_alias=True)

    extras: ClassVar[tuple[str, ...]] = ("modelscope",)
    example: ClassVar[Mapping[str, Any]] = {
        "train_dataset": "./outputs/demo-process/demo-processed.jsonl",
        "work_dir": "./outputs/demo-model",
        "model_name": "iic/nlp_gpt3_text-generation_chinese-base",
        "trainer_name": "nlp-base-trainer",
        "key_remapping": {"text": "src_txt"},
        "train": {
            "max_epochs": 2,
            "lr_scheduler": {"type": "StepLR", "step_size": 2, "options": {"by_epoch": False}},
            "optimizer": {"type": "AdamW", "lr": 3e-4},
            "dataloader": {"batch_size_per_gpu": 2, "workers_per_gpu": 0},
        },
    }

    train_dataset: InputPath = Field(description="JSONL, JSON or Parquet file, or a folder of these")
    eval_dataset: InputPath | None = Field(None, description="held-out rows: their loss before and after is reported")
    work_dir: OutputPath = Field(description="where checkpoints, logs and the model (output/) appear")
    model_name: ModelPath = Field(description="local model directory, or an id of the ModelScope hub")
    model_revision: str | None = Field(None, description="revision of a hub id; the hub's default when null")
    allow_download: bool = Field(True, description="fetch a hub id that is not in ModelScope's cache")
    trainer_name: str = Field("nlp-base-trainer", description="name of a ModelScope trainer")
    key_remapping: dict[str, str] = Field(
        default_factory=dict, description="columns of the data → names that the model's preprocessor reads"
    )
    # Its key is `train`, which as an attribute is the method.
    settings: TrainSettings = Field(default_factory=TrainSettings, alias="train", description="hyper-parameters")
    seed: int = Field(42, ge=0, description="seed of shuffling, dropout and new weights")

    def train(self, session: TrainSession) -> str:
        """Trains and returns `work_dir`; the model is in its folder `output`.

        Reports `loss`, `lr`, `epoch` and `iterations_per_second` at every iteration (from 1), and
        `eval_loss` at step 0 and at the last one when there is an `eval_dataset`.

        Raises:
            MissingExtraError: modelscope or torch is not installed.
            JobFailed: data or model are missing or unfit, the loss is not finite, or no model was saved.
        """
        _require_modelscope()
        data = {"train": read_columns(Path(self.train_dataset), self.key_remapping, "train_dataset")}
        if self.eval_dataset:
            data["eval"] = read_columns(Path(self.eval_dataset), self.key_remapping, "eval_dataset")
        model_dir = resolve_model(self.model_name, self.model_revision, allow_download=self.allow_download)
        _prepare_import(model_dir)
        work_dir = Path(self.work_dir).absolute()
        with staged(work_dir) as (folder, summary), without_hub(), _log_files_closed():
            reporter = LossReporter(session.report)
            trainer = self._build(data, model_dir, folder, session.device, reporter)
            summary.update(model=str(model_dir), seed=self.seed)
            summary.update(_run(trainer, reporter, session.report))
            _forget_directory(folder)
        return self.work_dir

    def _build(
        self, data: Mapping[str, pa.Table], model_dir: Path, folder: Path, device: str, reporter: LossReporter
    ) -> Any:
        """ModelScope's trainer, with the model loaded.

        Raises:
            JobFailed: ModelScope does not accept the configuration.
        """
        from modelscope.trainers import build_trainer

        arguments = {
            "model": str(model_dir),
            "train_dataset": _to_dataset(data["train"]),
            "eval_dataset": _to_dataset(data["eval"]) if "eval" in data else None,
            "work_dir": str(folder),
            "cfg_modify_fn": lambda config: self._configure(config, read_configuration(model_dir)),
            "callbacks": [reporter],
            "device": device,
            "seed": self.seed,
        }
        try:
            return build_trainer(name=self.trainer_name, default_args=arguments)
        except MODELSCOPE_FAULTS as error:
            raise JobFailed(
                f"ModelScope cannot build the trainer '{self.trainer_name}' for {model_dir}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _configure(self, config: Any, own: Mapping[str, Any]) -> Any:
        """Puts our settings over the model's, key by key.

        Args:
            config: ModelScope's view of the model's `configuration.json`, which it has already
                given its default hooks: one list for the whole process, emptied by the first
                training that uses it. Therefore it is replaced.
            own: the content of `configuration.json` itself.
        """
        settings = self.settings.model_dump(exclude_none=True)
        train = {**copy.deepcopy(_DEFAULTS), **own.get("train", {}), **settings}
        for key, value in train.items():  # its update() would mix the arguments of two schedulers
            config.train[key] = value
        evaluation = config.setdefault("evaluation", {})
        evaluation.setdefault("dataloader", {**train["dataloader"], "shuffle": False})
        return config


class LossReporter:
    """A ModelScope hook that reports every iteration and stops at a loss that is not finite.

    ModelScope calls hooks by method name, so that this needs no base class and no import of it.
    It runs before the optimizer's hook, which divides the loss and steps.

    Args:
        report: receives `loss`, `lr`, `epoch` (a fraction) and `iterations_per_second`.
    """

    PRIORITY = 0  # ModelScope's highest

    def __init__(self, report: Report) -> None:
        self._report = report
        self._last_time = 0.0
        self._first_rate: float | None = None
        self.losses: list[float] = []

    def before_run(self, trainer: Any) -> None:
        """Starts the clock."""
        self._last_time = time.perf_counter()

    def after_train_iter(self, trainer: Any) -> None:
        """Reports the iteration.

        Raises:
            JobFailed: its loss is NaN or infinite.
        """
        step = trainer.iter + 1
        loss = trainer.train_outputs["loss"].item()
        if not math.isfinite(loss):
            raise JobFailed(
                f"the loss is {loss} at iteration {step} (epoch {trainer.epoch + 1}): "
                f"lower train.optimizer.lr, or look for broken rows in train_dataset"
            )
        self.losses.append(loss)
        rate = trainer.optimizer.param_groups[0]["lr"]
        self._warn_of_vanished_rate(rate, step, trainer.max_iters)
        now = time.perf_counter()
        self._report(
            {
                "loss": loss,
                "lr": rate,
                "epoch": trainer.epoch + (trainer.inner_iter + 1) / trainer.iters_per_epoch,
                "iterations_per_second": 1 / max(now - self._last_time, 1e-9),
            },
            step=step,
        )
        self._last_time = now

    def _warn_of_vanished_rate(self, rate: float, step: int, steps: int) -> None:
        """Warns once of a schedule like the original demo's: StepLR by steps of 2, a tenth each time."""
        if self._first_rate is None:
            self._first_rate = rate
        elif rate < self._first_rate * _VANISHED and step < steps / 2:
            logger.warning(
                "train.lr_scheduler: the learning rate fell from %g to %g by iteration %d of %d; "
                "the model hardly learns from here on",
                self._first_rate,
                rate,
                step,
                steps,
            )
            self._first_rate = 0.0


def _require_modelscope() -> None:
    try:
        import datasets  # noqa: F401  # only whether they are there
        import modelscope.trainers  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "modelscope", "modelscope", "training with ModelScope") from error


def _prepare_import(model_dir: Path) -> None:
    """Loads the class of a plain GPT-3 and refuses a Megatron model."""
    configuration = read_configuration(model_dir)
    if "megatron" in configuration:
        raise JobFailed(
            f"model_name: {model_dir} is a Megatron model (its configuration.json has the key 'megatron'), "
            f"and Megatron cannot be installed here (use a model of the plain GPT-3 class)"
        )
    model = configuration.get("model")
    if isinstance(model, dict) and model.get("type") == "gpt3":
        import_plain_gpt3()


def _to_dataset(table: pa.Table) -> Any:
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from modelscope.msdatasets import MsDataset

    return MsDataset.to_ms_dataset(Dataset(InMemoryTable(table)))


def _run(trainer: Any, reporter: LossReporter, report: Report) -> dict[str, Any]:
    """Trains, with the held-out loss before and after; returns what `training.json` tells."""
    result: dict[str, Any] = {}
    if trainer.eval_dataset is not None:
        result["eval_loss_before"] = _held_out_loss(trainer)
        report({"eval_loss": result["eval_loss_before"]}, step=0)
    started = time.perf_counter()
    trainer.train()
    result["seconds"] = round(time.perf_counter() - started, 3)
    losses = reporter.losses
    if not losses:
        raise JobFailed("the training made no iteration: train_dataset is smaller than a batch")
    result.update(iterations=len(losses), first_loss=losses[0], last_loss=losses[-1])
    if trainer.eval_dataset is not None:
        result["eval_loss"] = _held_out_loss(trainer)
        report({"eval_loss": result["eval_loss"]}, step=len(losses))
    return result


def _held_out_loss(trainer: Any) -> float:
    """Mean loss per example of `eval_dataset`; leaves the training's random state alone."""
    import torch
    from modelscope.utils.data_utils import to_device

    total, examples = 0.0, 0
    with torch.random.fork_rng(devices=[]):
        for batch in trainer.get_eval_data_loader():
            loss = trainer.evaluation_step(to_device(batch, trainer.device))["loss"]
            size = len(next(iter(batch.values())))
            total += loss.item() * size
            examples += size
    mean = total / examples
    if not math.isfinite(mean):
        raise JobFailed(f"eval_dataset: the held-out loss is {mean}")
    return mean


def _forget_directory(folder: Path) -> None:
    """Takes the directory that ModelScope trained in out of the model's configuration.

    ModelScope sets these keys from the `work_dir` that a trainer is given. Without them equal trainings leave
    equal models wherever they ran, and nothing that goes on from a model writes into the folder of another run.

    Raises:
        JobFailed: no model was saved.
    """
    configuration = folder / OUTPUT_DIR / "configuration.json"
    if not configuration.is_file():
        raise JobFailed("ModelScope saved no model: train.hooks needs {type: CheckpointHook, interval: 1}")
    content = _without(json.loads(configuration.read_text(encoding="utf-8")), str(folder))
    configuration.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def _without(value: Any, folder: str) -> Any:
    """A JSON value less the keys whose text names a folder."""
    if isinstance(value, dict):
        return {k: _without(v, folder) for k, v in value.items() if not (isinstance(v, str) and folder in v)}
    return [_without(item, folder) for item in value] if isinstance(value, list) else value


@contextmanager
def _log_files_closed() -> Iterator[None]:
    """Closes the log file that a training gives ModelScope's one logger, so that the next gets its own."""
    shared = logging.getLogger("modelscope")
    try:
        yield
    finally:
        for handler in list(shared.handlers):
            if isinstance(handler, logging.FileHandler):
                shared.removeHandler(handler)
                handler.close()
