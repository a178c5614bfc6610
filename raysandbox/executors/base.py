"""Model executors: training, inference, evaluation and probes of models, chosen by `extra_configs.type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry
from raysandbox.core.runner import RowScorer, TrainSession, WorkSession

__all__ = [
    "INFERENCES",
    "MODEL_EVALUATORS",
    "MODEL_PROBES",
    "TRAINERS",
    "ModelEvaluator",
    "ModelInference",
    "ModelProbe",
    "ModelTrainer",
]

TRAINERS = Registry(
    "model trainer",
    ["raysandbox.executors.train"],
    planned=["easyanimate", "diffusers", "huggingface"],
)
INFERENCES = Registry(
    "model inference",
    ["raysandbox.executors.infer"],
    planned=["easyanimate", "diffusers"],
)
MODEL_EVALUATORS = Registry(
    "model evaluator",
    ["raysandbox.executors.evaluate"],
)
MODEL_PROBES = Registry(
    "model probe",
    ["raysandbox.executors.probe"],
)


class ModelTrainer(Component):
    """Trains a model; runs inside one worker per bundle."""

    registry: ClassVar[Registry] = TRAINERS

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
