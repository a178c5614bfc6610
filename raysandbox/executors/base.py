"""Model executors: training, inference, evaluation and probes of models, chosen by `extra_configs.type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry
from raysandbox.core.runner import RowScorer, TrainSession, WorkSession

__all__ = [
    "DATA_EXECUTORS",
    "INFERENCES",
    "MODEL_EVALUATORS",
    "MODEL_PROBES",
    "TRAINERS",
    "DataExecutor",
    "ModelEvaluator",
    "ModelInference",
    "ModelProbe",
    "ModelTrainer",
]

TRAINERS = Registry(
    "model trainer",
    ["raysandbox.executors.train"],
    planned=["huggingface"],
)
INFERENCES = Registry(
    "model inference",
    ["raysandbox.executors.infer"],
)
MODEL_EVALUATORS = Registry(
    "model evaluator",
    ["raysandbox.executors.evaluate"],
)
MODEL_PROBES = Registry(
    "model probe",
    ["raysandbox.executors.probe"],
)


DATA_EXECUTORS = Registry(
    "general data executor",
    ["raysandbox.executors.data"],
)


class DataExecutor(Component):
    """Does something with data that no recipe does, e.g. writes them in a trainer's format."""

    registry: ClassVar[Registry] = DATA_EXECUTORS

    def execute(self, session: WorkSession) -> str | list[str]:
        """Does it; returns the path or paths of what it wrote.

        Raises:
            JobFailed: the data are missing or unfit.
        """
        raise NotImplementedError


class ModelTrainer(Component):
    """Trains a model; runs inside one worker per bundle.

    Class attributes:
        distributed: whether several workers may train together.
    """

    registry: ClassVar[Registry] = TRAINERS
    distributed: ClassVar[bool] = False

    def prepare(self, session: WorkSession) -> Any:
        """Does what comes before the training, outside of its workers; what it returns is sent to each of them."""
        return None

    def train(self, session: TrainSession) -> str:
        """Trains and returns the checkpoint or model directory.

        Raises:
            JobFailed: the training ended without a model, or its loss is not a number.
        """
        raise NotImplementedError


class ModelInference(Component):
    """Makes a model produce outputs from given inputs."""

    registry: ClassVar[Registry] = INFERENCES

    def infer(self, session: WorkSession) -> str | list[str]:
        """Produces the outputs; returns their directory or paths.

        Raises:
            JobFailed: an output is missing.
        """
        raise NotImplementedError


class ModelEvaluator(Component):
    """Scores a model."""

    registry: ClassVar[Registry] = MODEL_EVALUATORS

    def evaluate(self, session: WorkSession) -> float | Mapping[str, Any]:
        """Returns the score, or a mapping of scores.

        Raises:
            JobFailed: there is nothing to measure with, or the result is not a number.
        """
        raise NotImplementedError


class ModelProbe(Component):
    """Looks at data through a model: what it makes of each row."""

    registry: ClassVar[Registry] = MODEL_PROBES

    def scorer(self) -> RowScorer:
        """The model as a scorer of rows; higher is harder.

        Raises:
            UserError: the model is not on this machine.
        """
        raise NotImplementedError
