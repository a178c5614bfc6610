"""Keeps texts by their number of tokens."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.base import Filter, Stat
from raysandbox.ops.batch import Batch
from raysandbox.ops.pretrained import missing_weights_of
from raysandbox.ops.tokenization import load_hf_tokenizer

__all__ = ["TokenNumFilter"]

_TEXTS_AT_ONCE = 128  # bounds the encodings in memory


@register("token_num_filter")
class TokenNumFilter(Filter):
    """Keeps texts whose number of tokens lies within a range."""

    extras: ClassVar[tuple[str, ...]] = ("models",)
    example: ClassVar[Mapping[str, Any]] = {"hf_tokenizer": "EleutherAI/pythia-6.9b-deduped", "min_num": 10}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("num_token", "min_num", "max_num", 0, integer=True),)

    hf_tokenizer: ModelPath = Field(
        "EleutherAI/pythia-6.9b-deduped", description="Hugging Face tokenizer: folder or hub id"
    )
    min_num: int | None = Field(10, description="fewest tokens")
    max_num: int | None = Field(sys.maxsize, description="most tokens")
    trust_remote_code: bool = Field(False, description="whether code that comes with the tokenizer may run")

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The tokenizer, when it is an id of the hub that was not fetched yet."""
        message = missing_weights_of(raw.get("hf_tokenizer", cls.model_fields["hf_tokenizer"].default))
        return {"hf_tokenizer": message} if message else {}

    def load(self) -> Any:
        """Loads the tokenizer."""
        key = f"{self.type_name}: hf_tokenizer"
        return load_hf_tokenizer(key, self.hf_tokenizer, trust_remote_code=self.trust_remote_code)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `num_token`, the tokens of the text alone, without those that frame it for a model."""
        counts: list[int] = []
        for start in range(0, batch.num_rows, _TEXTS_AT_ONCE):
            texts = batch.texts[start : start + _TEXTS_AT_ONCE]
            counts += [len(tokens) for tokens in state.encode_batch_fast(texts, add_special_tokens=False)]
        return {"num_token": pa.array(counts, pa.int64())}
