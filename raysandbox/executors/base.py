"""Model executors: what `TrainModelHook` and `InferModelHook` run, chosen by `extra_configs.type`."""

from __future__ import annotations

from typing import ClassVar

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry
from raysandbox.core.runner import TrainSession

__all__ = ["INFERENCES", "TRAINERS", "ModelTrainer"]

TRAINERS = Registry(
    "model trainer",
    ["raysandbox.executors.train"],
    planned=["easyanimate", "diffusers", "huggingface"],
)
INFERENCES = Registry(
    "model inference",
    ["raysandbox.executors.infer"],
    planned=["easyanimate", "diffusers", "huggingface", "vllm", "api"],
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
