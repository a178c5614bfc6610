"""The tokenization switch of Data-Juicer's word operators: words as a tokenizer's model splits them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, ValidationInfo

from raysandbox.core.component import PathRole
from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.ops import tables
from raysandbox.ops.batch import Batch
from raysandbox.ops.pretrained import Source, load_part
from raysandbox.ops.text import CodePoints, Words, words

__all__ = ["Splitter", "Tokenization", "Tokenizer", "encoded", "load_hf_tokenizer", "load_splitter", "words_of"]


def _needed(tokenizer: str | None, info: ValidationInfo) -> str | None:
    if info.data.get("tokenization") and not tokenizer:
        raise ValueError(
            "is required with `tokenization: true`: the path of a sentencepiece model, "
            "or the folder or hub id of a Hugging Face tokenizer"
        )
    return tokenizer


Tokenization = Annotated[bool, Field(description="whether a tokenizer's model splits the text, not white space")]
Tokenizer = Annotated[
    str | None,
    PathRole.MODEL,
    AfterValidator(_needed),
    Field(
        validate_default=True,
        description="what splits the text: file of a sentencepiece model, or folder or hub id of a Hugging Face "
        "tokenizer; required with tokenization",
    ),
]


@dataclass(frozen=True)
class Splitter:
    """A loaded tokenizer.

    Attributes:
        tokenizer: its path or name.
        split: from texts to the pieces of each.
    """

    tokenizer: str
    split: Callable[[list[str]], list[list[str]]]

    def pieces(self, batch: Batch) -> list[list[str]]:
        """The pieces of each text of the batch."""
        return batch.view(("pieces", self.tokenizer), lambda: self.split(batch.texts))


def load_splitter(tokenizer: str | None) -> Splitter | None:
    """Loads a tokenizer: a file as sentencepiece's, anything else as Hugging Face's; None for none.

    Raises:
        MissingExtraError: the package that reads it is not installed.
        UserError: it cannot be loaded.
    """
    if tokenizer is None:
        return None
    path = Path(tokenizer).expanduser()
    if not path.is_file():
        fast = load_hf_tokenizer("tokenizer", tokenizer)
        encode = partial(fast.encode_batch, add_special_tokens=False)
        return Splitter(tokenizer, lambda texts: [encoding.tokens for encoding in encode(texts)])
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise MissingExtraError("sentencepiece", "models", "Tokenization by a sentencepiece model") from error
    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except RuntimeError as error:
        raise UserError(f"tokenizer: {path} is not a sentencepiece model: {error}") from error
    return Splitter(tokenizer, partial(processor.encode, out_type=str, num_threads=1))


def load_hf_tokenizer(key: str, name: str, *, trust_remote_code: bool = False) -> Any:
    """Loads a fast tokenizer (`tokenizers.Tokenizer`) from a folder or the Hugging Face hub.

    Args:
        key: what messages call the setting.
        name: folder or hub id.
        trust_remote_code: whether code that comes with it may run.

    Raises:
        MissingExtraError: transformers is not installed.
        UserError: it cannot be loaded, or has no fast form.
    """
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", "models", "A Hugging Face tokenizer") from error
    # One thread: the other CPUs have workers of their own.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = load_part(Source(key, name, "cpu", 1, trust_remote_code), AutoTokenizer)
    if not found.is_fast:
        raise UserError(f"{key}: '{name}' has no fast tokenizer (give a folder with a tokenizer.json)")
    tokenizer = found.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def words_of(batch: Batch, splitter: Splitter | None, *, lower: bool) -> Words:
    """The batch's words; with a splitter its pieces, lowered and stripped as words are."""
    if splitter is None:
        return words(batch, lower=lower)
    return batch.view(("words", lower, splitter.tokenizer), lambda: _stripped(splitter.pieces(batch), lower))


def _stripped(rows: list[list[str]], lower: bool) -> Words:
    from raysandbox.ops import kernels

    flat = encoded([piece.lower() if lower else piece for row in rows for piece in row])
    # Each piece is a text without separators: one word is left of it, or none.
    starts, ends, found = kernels.word_spans(flat.codes, flat.starts, flat.ends, tables.special() << 1)
    edges = found[np.cumsum([0, *(len(row) for row in rows)])]
    return Words(flat.codes, starts, ends, edges[:-1].copy(), edges[1:].copy())


def encoded(texts: Sequence[str]) -> CodePoints:
    """The code points of some texts."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    bounds = np.cumsum([0, *(len(text) for text in texts)])
    return CodePoints(codes, bounds[:-1], bounds[1:])
