"""How well a causal language model predicts held-out text."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import pyarrow as pa
from pydantic import Field, model_validator

from raysandbox.core.component import InputPath, ModelPath
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.executors._causal_lm import CausalLM, Dtype, LanguageModel, TextLoss, located
from raysandbox.executors._texts import TextReader, without_text
from raysandbox.executors.base import ModelEvaluator
from raysandbox.ops.pretrained import missing_weights_of

__all__ = ["Perplexity"]

logger = logging.getLogger(__name__)

# A unit of work: what a worker gets at once. The same for every number of workers, so that the
# windows that share a batch, and with them the last bits of the result, are the same too.
_UNIT_TEXTS = 256
_UNIT_CHARACTERS = 250_000


@register("perplexity")
class Perplexity(ModelEvaluator):
    """Measures a causal language model on held-out text: exp of the mean loss per predicted token.

    Tokens count alike, whichever text they are in. Texts longer than the model's context go through
    it in windows that overlap, as in transformers' guide "Perplexity of fixed-length models".
    """

    extras: ClassVar[tuple[str, ...]] = ("models",)
    example: ClassVar[Mapping[str, Any]] = {
        "model": "./outputs/demo/model",
        "dataset_path": "./demos/held_out.jsonl",
        "batch_size": 16,
        "dtype": "bfloat16",
    }

    model: ModelPath = Field(description="folder of the model, or its id on the hub")
    hub: Literal["huggingface", "modelscope"] = Field("huggingface", description="where the model is from")
    dataset_path: InputPath = Field(description="held-out text: file, folder, glob or weighted mix")
    text_key: str = Field("text", description="field of the text; levels separated by dots")
    max_length: int | None = Field(
        None, ge=2, description="tokens that the model sees at once; by default its context, at most 2048"
    )
    stride: int | None = Field(
        None, ge=1, description="tokens by which the window moves on in longer texts; by default half of max_length"
    )
    batch_size: int = Field(8, ge=1, description="windows that go through the model at once")
    dtype: Dtype = Field("auto", description="type of the weights; auto keeps them as they are stored")
    trust_remote_code: bool = Field(
        False, description="whether Python code that lies beside the weights may run; needs --allow-user-code"
    )

    @model_validator(mode="after")
    def _windows_meet(self) -> Perplexity:
        if self.stride is not None and self.max_length is not None and self.stride > self.max_length:
            raise ValueError(f"stride ({self.stride}) is more than max_length ({self.max_length})")
        return self

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, when it is an id of the Hugging Face hub that was not fetched yet."""
        missing = missing_weights_of(raw.get("model")) if raw.get("hub", "huggingface") == "huggingface" else None
        return {"model": missing} if missing else {}

    def evaluate(self, session: WorkSession) -> float:
        """Returns the perplexity; reports it with the numbers of tokens and rows.

        The texts are scored by the job's workers (`resources`); the result does not depend on their number.

        Raises:
            UserError: the model cannot be had, or brings code that may not run; there is no such field.
            JobFailed: no row has text to predict, or the loss is not a number.
        """
        if self.trust_remote_code and not session.allow_user_code:
            raise UserError("trust_remote_code runs code that lies beside the model: allow it with --allow-user-code")
        texts = session.scorers.score(self.dataset_path, TextReader(self.text_key))
        if texts.num_rows == 0:
            raise JobFailed(f"{self.dataset_path} has no rows: there is nothing to predict")
        column = texts.column("text")
        present = column.drop_null()
        if len(present) == 0:
            raise JobFailed(f"no row of {self.dataset_path} has text in '{self.text_key}': set text_key")
        losses = self._losses(session, _Chunks.of(present))
        return self._reported(session, column, losses)

    def _losses(self, session: WorkSession, chunks: Sequence[list[str]]) -> list[TextLoss]:
        work = _Scoring(
            LanguageModel(
                located(self.model),
                self.hub,
                self.dtype,
                self.max_length,
                self.stride,
                self.batch_size,
                self.trust_remote_code,
            )
        )
        found = dict(session.workers.map(work, chunks, description="perplexity", elastic=True))
        return [loss for index in range(len(chunks)) for loss in found[index]]

    def _reported(self, session: WorkSession, column: pa.ChunkedArray, losses: Sequence[TextLoss]) -> float:
        missing = column.null_count
        unpredicted = sum(loss.tokens == 0 for loss in losses)
        if missing:
            logger.warning("%s", without_text(column, self.dataset_path, self.text_key))
        if unpredicted:
            logger.warning("%d texts of %s have one token or none: nothing to predict", unpredicted, self.dataset_path)
        tokens = sum(loss.tokens for loss in losses)
        if tokens == 0:
            raise JobFailed(f"the texts of {self.dataset_path} have one token at most: there is nothing to predict")
        broken = sum(not math.isfinite(loss.total) for loss in losses)
        if broken:
            raise JobFailed(
                f"the loss of {broken} of {len(losses)} texts is not a number under {self.model}: its weights are "
                f"broken, or too large for dtype {self.dtype} (bfloat16 and float32 reach further than float16)"
            )
        loss = math.fsum(loss.total for loss in losses) / tokens
        try:
            perplexity = math.exp(loss)
        except OverflowError:
            raise JobFailed(
                f"the mean loss of {self.model} is {loss:g} nats per token: no perplexity to go by"
            ) from None
        counts = {"tokens": tokens, "rows": len(column), "rows_without_text": missing + unpredicted}
        session.report({"perplexity": perplexity, "loss": loss, **{name: float(n) for name, n in counts.items()}})
        return perplexity


@dataclass(frozen=True)
class _Scoring:
    """Scores chunks of texts (`core.runner.UnitWork`)."""

    model: LanguageModel

    def load(self, device: str) -> CausalLM:
        return self.model.load(device)

    def run(self, unit: list[str], state: CausalLM) -> list[TextLoss]:
        return state.losses(unit)


class _Chunks(Sequence[list[str]]):
    """Texts in chunks that are made when they are asked for: the column stays as it is in memory."""

    def __init__(self, texts: pa.ChunkedArray, edges: Sequence[int]) -> None:
        self._texts, self._edges = texts, edges

    @classmethod
    def of(cls, texts: pa.ChunkedArray) -> _Chunks:
        """Chunks of bounded numbers of texts and characters; a longer text is a chunk by itself."""
        return cls(texts, [0, *_edges(map(len, _strings(texts)))])

    def __len__(self) -> int:
        return len(self._edges) - 1

    @overload
    def __getitem__(self, index: int) -> list[str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[str]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        start, end = self._edges[index], self._edges[index + 1]
        return self._texts.slice(start, end - start).to_pylist()


def _strings(texts: pa.ChunkedArray) -> Iterator[str]:
    for chunk in texts.chunks:
        yield from chunk.to_pylist()


def _edges(lengths: Iterator[int]) -> Iterator[int]:
    """Where chunks end, as numbers of texts."""
    count = characters = texts = 0
    for length in lengths:
        if count and (count == _UNIT_TEXTS or characters + length > _UNIT_CHARACTERS):
            yield texts
            count = characters = 0
        count, characters, texts = count + 1, characters + length, texts + 1
    if count:
        yield texts
