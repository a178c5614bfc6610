"""One component of each kind that a package may add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from raysandbox import register
from raysandbox.config.stages import Stage
from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.runner import TrainSession, WorkSession
from raysandbox.evaluators.base import DataEvaluator
from raysandbox.executors.base import ModelTrainer
from raysandbox.hooks.base import Hook, Job, JobContext
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch


@register("shout_mapper")
class ShoutMapper(Mapper):
    """Writes every text in capitals."""

    example: ClassVar[Mapping[str, Any]] = {}

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch in capitals."""
        return batch.with_texts([text.upper() for text in batch.texts])


class LengthScorer:
    """Scores a row by the length of its text."""

    def load(self) -> None:
        """There is nothing to load."""

    def score(self, table: pa.Table, state: None) -> Mapping[str, pa.Array]:
        """Returns the lengths."""
        return {"length": pa.array([float(len(text)) for text in table.column("text").to_pylist()])}


@register("mean_length")
class MeanLength(DataEvaluator):
    """Mean length of the texts in characters."""

    dataset_path: InputPath

    def evaluate(self, session: WorkSession) -> float:
        """Returns the mean length."""
        lengths = session.scorers.score(self.dataset_path, LengthScorer()).column("length").to_pylist()
        return sum(lengths) / len(lengths)


@register("memorise")
class Memorise(ModelTrainer):
    """Learns its data by heart."""

    train_dataset: InputPath
    model_path: OutputPath

    def train(self, session: TrainSession) -> str:
        """Copies the data and reports a loss of zero."""
        Path(self.model_path).write_bytes(Path(self.train_dataset).read_bytes())
        session.report({"loss": 0.0}, step=1)
        return self.model_path


@register("publish")
class Publish(Stage):
    """Hands results over."""

    after = "evaluation"


class CountLinesSettings(BaseModel):
    """Configuration of `CountLinesHook`."""

    model_config = ConfigDict(extra="forbid")

    path: InputPath


@register("CountLinesHook")
class CountLinesHook(Hook):
    """Counts the lines of a file."""

    settings = CountLinesSettings
    returns = ("number of lines",)

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Returns the number of lines."""
        return [len(Path(job.extra["path"]).read_text().splitlines())]
