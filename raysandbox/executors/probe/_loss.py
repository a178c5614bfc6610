"""What the model probes have in common: the loss of each row's text under a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import Field

from raysandbox.executors._causal_lm import CausalLM, LanguageModel
from raysandbox.executors._texts import texts_of
from raysandbox.executors.base import ModelProbe

__all__ = ["LossScorer", "TextProbe", "Verdict", "device_here", "scored_texts", "verdict_columns"]


class TextProbe(ModelProbe):
    """A probe that looks at one text of each row."""

    model: str
    text_key: str = Field("text", description="field of the text; levels separated by dots")
    batch_size: int = Field(8, ge=1, description="texts that go through the model at once")
    num_hardest: int = Field(20, ge=0, description="how many of the hardest rows are listed")
    trust_remote_code: bool = Field(
        False, description="whether Python code that lies beside the weights may run; needs --allow-user-code"
    )


@dataclass(frozen=True)
class LossScorer:
    """A row scorer: `model_loss`, the mean negative log-likelihood per token in nats, and `model_tokens`.

    Attributes:
        model: the language model.
        text_key: field of the text.
    """

    model: LanguageModel
    text_key: str

    def load(self) -> CausalLM:
        """The model on this process's device."""
        return self.model.load(device_here())

    def score(self, table: pa.Table, state: CausalLM) -> Mapping[str, pa.Array]:
        """Returns both columns; null where there is no text, or nothing to predict in it."""
        found = scored_texts(texts_of(table, self.text_key), state.losses)
        means = [loss.total / loss.tokens if loss is not None and loss.tokens else None for loss in found]
        tokens = [None if loss is None else loss.tokens for loss in found]
        return {"model_loss": pa.array(means, pa.float64()), "model_tokens": pa.array(tokens, pa.int64())}


@dataclass(frozen=True)
class Verdict:
    """What a classifier says of a text.

    Attributes:
        loss: negative logarithm of the probability of the label that counts.
        score: probability of the predicted label.
        label: the predicted label.
    """

    loss: float | None
    score: float
    label: str


def verdict_columns(verdicts: Sequence[Verdict | None]) -> Mapping[str, pa.Array]:
    """Verdicts as columns of statistics; null where there is none."""
    return {
        "model_loss": pa.array([None if one is None else one.loss for one in verdicts], pa.float64()),
        "model_score": pa.array([None if one is None else one.score for one in verdicts], pa.float64()),
        "model_label": pa.array([None if one is None else one.label for one in verdicts], pa.string()),
    }


def scored_texts(texts: Sequence[str | None], score: Callable[[list[str]], Sequence[Any]]) -> list[Any]:
    """What `score` makes of the texts that are there; None in the place of the others."""
    found = iter(score([text for text in texts if text is not None]))
    return [None if text is None else next(found) for text in texts]


def device_here() -> str:
    """The torch device of this process; a worker without a GPU of its own sees none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
