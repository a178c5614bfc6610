"""Looks at texts through a model of ModelScope."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import LibraryOptions, ModelPath
from raysandbox.core.errors import JobFailed, MissingExtraError, UserError
from raysandbox.core.memory import batches_that_fit
from raysandbox.core.registry import register
from raysandbox.core.runner import RowScorer
from raysandbox.executors._causal_lm import Dtype, LanguageModel, located
from raysandbox.executors._texts import texts_of
from raysandbox.executors.probe._loss import (
    LossScorer,
    TextProbe,
    Verdict,
    device_here,
    scored_texts,
    verdict_columns,
)
from raysandbox.executors.train._modelscope_hub import MODELSCOPE_FAULTS, resolve_model

__all__ = ["ModelscopeProbe"]

_HARMLESS = (
    "first_sequence id2label label2id max_length mode padding pipeline_name second_sequence sequence_length topk "
    "truncation"
)


@register("modelscope")
class ModelscopeProbe(TextProbe):
    """Scores texts by a ModelScope pipeline: `task`, `model` and its other arguments.

    For `text-generation` the text is not continued: `model_loss` is its mean loss per token in nats,
    and `model_tokens` the number of predicted tokens. Other tasks run their pipeline, which must
    give scores, as classifications do: `model_label` is the label with the highest score, `model_score`
    that score, and `model_loss` its negative logarithm. The higher the loss, the harder the text.
    """

    extras: ClassVar[tuple[str, ...]] = ("modelscope",)
    example: ClassVar[Mapping[str, Any]] = {"task": "text-generation", "model": "./outputs/demo/model/output"}

    task: str = Field(min_length=1, description="task of the pipeline: text-generation, text-classification, …")
    model: ModelPath = Field(description="folder of the model, or its id on the ModelScope hub")
    model_revision: str | None = Field(None, description="revision of a hub id; the hub's default when null")
    pipeline_params: Annotated[dict[str, Any], LibraryOptions(frozenset(_HARMLESS.split()))] = Field(
        default_factory=dict, description="other arguments of the pipeline, such as pipeline_name"
    )
    infer_params: dict[str, Any] = Field(
        default_factory=dict, description="arguments of its calls, such as max_length or topk"
    )
    max_length: int | None = Field(
        None, ge=2, description="text-generation: tokens that the model sees at once; by default its context"
    )
    stride: int | None = Field(
        None, ge=1, description="text-generation: tokens by which the window moves on; by default half of max_length"
    )
    dtype: Dtype = Field("auto", description="text-generation: type of the weights; auto keeps them as stored")

    def scorer(self) -> RowScorer:
        """The model as a scorer of rows."""
        if self.task == "text-generation":
            model = LanguageModel(
                located(self.model),
                "modelscope",
                self.dtype,
                self.max_length,
                self.stride,
                self.batch_size,
                self.trust_remote_code,
                self.model_revision,
            )
            return LossScorer(model, self.text_key)
        return _PipelineScorer(
            self.task,
            located(self.model),
            self.model_revision,
            self.text_key,
            self.batch_size,
            {**self.pipeline_params, "trust_remote_code": self.trust_remote_code},
            self.infer_params,
        )


@dataclass(frozen=True)
class _PipelineScorer:
    """A row scorer by a pipeline; the fields are those of the probe."""

    task: str
    model: str
    revision: str | None
    text_key: str
    batch_size: int
    pipeline_params: Mapping[str, Any] = field(default_factory=dict)
    infer_params: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The pipeline, on this process's device.

        Raises:
            JobFailed: the model cannot be had, or ModelScope makes no such pipeline of it.
        """
        try:
            from modelscope.pipelines import pipeline
        except ImportError as error:
            raise MissingExtraError(error.name or "modelscope", "modelscope", "A model of ModelScope") from error
        folder = resolve_model(self.model, self.revision, allow_download=True, key="model")
        device = "gpu" if device_here() == "cuda" else "cpu"
        try:
            return pipeline(task=self.task, model=str(folder), device=device, **self.pipeline_params)
        except MODELSCOPE_FAULTS as error:
            raise JobFailed(
                f"ModelScope makes no pipeline for task '{self.task}' of {folder}: {type(error).__name__}: {error}"
            ) from error

    def score(self, table: pa.Table, state: Any) -> Mapping[str, pa.Array]:
        """Returns `model_loss`, `model_score` and `model_label`.

        Raises:
            UserError: the pipeline gives no scores.
        """

        def verdicts(texts: list[str]) -> list[Verdict]:

            def judged(some: Sequence[str]) -> list[Any]:
                return list(state(list(some), batch_size=self.batch_size, **self.infer_params))

            refusal = "the memory does not hold the model and one text: use a GPU with more, or a smaller model"
            batches = batches_that_fit(texts, self.batch_size, judged, lambda _: refusal)
            return [_verdict(result, self.task) for _, results in batches for result in results]

        return verdict_columns(scored_texts(texts_of(table, self.text_key), verdicts))


def _verdict(result: Any, task: str) -> Verdict:
    """What a pipeline's output says.

    Raises:
        UserError: it holds no scores between 0 and 1.
    """
    output = result if isinstance(result, Mapping) else {}
    scores, labels = (_as_list(output.get(f"{name}s", output.get(name))) for name in ("score", "label"))
    if not scores or len(labels) != len(scores):
        held = ", ".join(map(str, output)) or type(result).__name__
        raise UserError(
            f"the pipeline of task '{task}' gives {held}: a probe needs scores with labels (use a classification, or "
            f"task text-generation for losses)"
        )
    best = max(range(len(scores)), key=lambda index: scores[index])
    score = float(scores[best])
    if not 0 < score <= 1:
        raise UserError(f"the pipeline of task '{task}' gives the score {score}, which is no probability")
    return Verdict(-math.log(score), score, str(labels[best]))


def _as_list(value: Any) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
