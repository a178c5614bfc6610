"""Looks at texts through a model of Hugging Face: a causal language model or a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.errors import UserError
from raysandbox.core.memory import batches_that_fit
from raysandbox.core.registry import register
from raysandbox.core.runner import RowScorer
from raysandbox.executors._causal_lm import (
    Dtype,
    LanguageModel,
    located,
)
from raysandbox.executors._texts import texts_of
from raysandbox.executors.probe._loss import (
    LossScorer,
    TextProbe,
    Verdict,
    device_here,
    scored_texts,
    verdict_columns,
)
from raysandbox.ops.batch import Batch
from raysandbox.ops.fields import field_list
from raysandbox.ops.pretrained import Source, load_model, load_part, transformers_package

__all__ = ["HuggingfaceProbe"]

_DEFAULT_CONTEXT = 512  # tokens of a classifier whose files say nothing
_NO_LIMIT = 10**9  # transformers writes 10^30 where a tokenizer knows no length


@register("huggingface")
class HuggingfaceProbe(TextProbe):
    """Scores texts by a model of transformers: the loss of a causal language model, or a classifier's verdict.

    A language model gives `model_loss`, the mean loss per token in nats, and `model_tokens`. A
    classifier gives `model_label`, its probability `model_score`, and `model_loss`: the negative
    logarithm of the probability of the row's own label, where `label_key` names it, else of the
    predicted one. The higher the loss, the harder the text.
    """

    extras: ClassVar[tuple[str, ...]] = ("models",)
    example: ClassVar[Mapping[str, Any]] = {"model": "./outputs/demo/model", "batch_size": 16, "num_hardest": 50}

    model: ModelPath = Field(description="folder of the model, or its id on the Hugging Face hub")
    task: Literal["auto", "text-generation", "text-classification"] = Field(
        "auto", description="what the model does; auto goes by its configuration"
    )
    label_key: str | None = Field(
        None, description="text-classification: field of each row's own label; levels separated by dots"
    )
    max_length: int | None = Field(
        None, ge=2, description="tokens that the model sees at once; by default its context, at most 2048"
    )
    stride: int | None = Field(
        None, ge=1, description="text-generation: tokens by which the window moves on; by default half of max_length"
    )
    dtype: Dtype = Field("auto", description="type of the weights; auto keeps them as they are stored")

    def scorer(self) -> RowScorer:
        """The model as a scorer of rows."""
        language_model = LanguageModel(
            located(self.model),
            "huggingface",
            self.dtype,
            self.max_length,
            self.stride,
            self.batch_size,
            self.trust_remote_code,
        )
        losses = LossScorer(language_model, self.text_key)
        if self.task == "text-generation":
            return losses
        classes = _ClassScorer(
            located(self.model),
            self.text_key,
            self.label_key,
            self.dtype,
            self.max_length,
            self.batch_size,
            self.trust_remote_code,
        )
        return classes if self.task == "text-classification" else _EitherScorer(losses, classes)


@dataclass(frozen=True)
class _EitherScorer:
    """Chooses by the architecture that the model's configuration names."""

    losses: LossScorer
    classes: _ClassScorer

    def load(self) -> tuple[RowScorer, Any]:
        transformers = transformers_package("A model probe")
        config = load_part(self.classes.source("cpu"), transformers.AutoConfig)
        kinds = config.architectures or []
        chosen = self.classes if any("SequenceClassification" in kind for kind in kinds) else self.losses
        return chosen, chosen.load()

    def score(self, table: pa.Table, state: tuple[RowScorer, Any]) -> Mapping[str, pa.Array]:
        chosen, model = state
        return chosen.score(table, model)


@dataclass(frozen=True)
class _ClassScorer:
    """A row scorer by a classifier of texts; the fields are those of the probe."""

    model: str
    text_key: str
    label_key: str | None
    dtype: Dtype
    max_length: int | None
    batch_size: int
    trust_remote_code: bool

    def source(self, device: str) -> Source:
        """The model to load."""
        return Source("model", self.model, device, self.batch_size, self.trust_remote_code)

    def load(self) -> _Classifier:
        """The classifier on this process's device.

        Raises:
            UserError: it is not there, or no classifier.
        """
        transformers = transformers_package("A model probe")
        source = self.source(device_here())
        tokenizer = load_part(source, transformers.AutoTokenizer)
        model = load_model(source, transformers.AutoModelForSequenceClassification, dtype=self.dtype).to(source.device)
        if model.config.num_labels < 2:
            raise UserError(f"model: '{self.model}' has one output and no classes to choose from")
        known = (getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length)
        context = min((length for length in known if length and length < _NO_LIMIT), default=_DEFAULT_CONTEXT)
        return _Classifier(tokenizer, model, min(self.max_length or context, context), source.device)

    def score(self, table: pa.Table, state: _Classifier) -> Mapping[str, pa.Array]:
        """Returns `model_loss`, `model_score` and `model_label`.

        Raises:
            UserError: a row's own label is none of the model's.
        """
        texts = texts_of(table, self.text_key)
        own = [None] * len(texts) if self.label_key is None else field_list(Batch.from_table(table), self.label_key)
        scores = scored_texts(texts, lambda present: state.log_probabilities(present, self.batch_size))
        return verdict_columns(
            [
                None if row is None else self._verdict(row, label, state.labels)
                for row, label in zip(scores, own, strict=True)
            ]
        )

    def _verdict(self, scores: Sequence[float], own: Any, labels: Sequence[str]) -> Verdict:
        best = max(range(len(scores)), key=scores.__getitem__)
        counts: int | None = best
        if self.label_key is not None:
            counts = None if own is None else _index_of(own, labels, self.label_key)
        return Verdict(None if counts is None else -scores[counts], math.exp(scores[best]), labels[best])


def _index_of(own: Any, labels: Sequence[str], key: str) -> int:
    """Position of a label, given by name or number."""
    if isinstance(own, int) and not isinstance(own, bool) and 0 <= own < len(labels):
        return own
    if own in labels:
        return labels.index(own)
    raise UserError(f"label_key: '{key}' is {own!r}, which is no label of the model ({', '.join(labels)})")


@dataclass(frozen=True)
class _Classifier:
    """A loaded classifier."""

    tokenizer: Any
    model: Any
    max_length: int
    device: str

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in order."""
        names = self.model.config.id2label
        return [str(names[index]) for index in range(self.model.config.num_labels)]

    def log_probabilities(self, texts: list[str], batch_size: int) -> list[list[float]]:
        """Natural logarithms of the probabilities of the classes, for each text; texts are cut at `max_length`.

        Raises:
            JobFailed: the memory does not hold one text.
        """
        import torch

        def judged(rows: Sequence[int]) -> list[list[float]]:
            batch = self.tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            with torch.inference_mode():
                return self.model(**batch.to(self.device)).logits.double().log_softmax(-1).tolist()

        order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
        found: dict[int, list[float]] = {}
        refusal = "the memory does not hold the model and one text: set a smaller max_length"
        for rows, scores in batches_that_fit(order, batch_size, judged, lambda _: refusal):
            found.update(zip(rows, scores, strict=True))
        return [found[index] for index in range(len(texts))]
