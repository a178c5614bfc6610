"""Models that are judged by what they generate: a generation and an evaluation of data in one job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from raysandbox.core.component import Component, FetchedLater, InputPath, nested_model
from raysandbox.executors._video.generation.prompts import read_prompts
from raysandbox.executors.base import ModelEvaluator
from raysandbox.executors.infer.diffusers import DiffusersInference

__all__ = ["GeneratingEvaluator", "Generation"]


class Generation(DiffusersInference):
    """Keys of the inference `diffusers`; prompts may follow from the evaluation."""

    prompts: InputPath = Field("", description="as of the inference; by default what the evaluation asks for")

    def texts(self) -> Sequence[str]:
        """The prompts that videos are made of."""
        return read_prompts(Path(self.prompts).expanduser(), self.prompt_key, self.prompt_limit).texts


class GeneratingEvaluator(ModelEvaluator):
    """Base of evaluators whose fields hold components: what those ask for is asked for by the job.

    Both parts keep their own results (videos with records, scores by content), so the job is run again
    to look what is left to do.
    """

    extras: ClassVar[tuple[str, ...]] = ("video",)
    keeps_own_results: ClassVar[bool] = True
    kept_artifacts: ClassVar[frozenset[str]] = Generation.kept_artifacts

    generation: Generation = Field(description="how the videos are made: keys of the inference `diffusers`")

    @classmethod
    def more_inputs(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """Those of the parts."""
        return [path for _, part, given in cls._parts(raw) for path in part.more_inputs(given)]

    @classmethod
    def surroundings(cls, raw: Mapping[str, Any]) -> Any:
        """Those of the parts, by field."""
        return {name: part.surroundings(given) for name, part, given in cls._parts(raw)}

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """Those of the parts; the messages name the keys below the fields."""
        found: dict[str, str] = {}
        for name, part, given in cls._parts(raw):
            missing = part.missing_weights(given)
            if missing:
                kind = FetchedLater if all(isinstance(text, FetchedLater) for text in missing.values()) else str
                found[name] = kind("; ".join(f"{key}: {text}" for key, text in missing.items()))
        return found

    @classmethod
    def _parts(cls, raw: Mapping[str, Any]) -> Iterator[tuple[str, type[Component], Mapping[str, Any]]]:
        for name, field in cls.model_fields.items():
            part, given = nested_model(field.annotation), raw.get(name)
            if part is not None and issubclass(part, Component) and isinstance(given, Mapping):
                yield name, part, given
