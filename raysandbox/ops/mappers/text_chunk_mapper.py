"""Splits texts into several rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator

from raysandbox.core.component import ModelPath
from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.core.names import pinned
from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.pretrained import hub_commit, warn_unpinned

__all__ = ["TextChunkMapper"]


def _check(pattern: str | None) -> str | None:
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
    return pattern


@register("text_chunk_mapper")
class TextChunkMapper(Mapper):
    """Splits each text into chunks of bounded length, one row each; other columns are repeated.

    With `split_pattern` alone, texts are split at its matches. With `max_len` alone, they are cut
    after as many characters or tokens. With both, a text that is too long is cut at the last match
    within `max_len`, or after `max_len` if there is none.
    """

    example: ClassVar[Mapping[str, Any]] = {"max_len": 1000, "overlap_len": 100}

    max_len: int | None = Field(None, gt=0, description="most characters, or tokens with `tokenizer`, of a chunk")
    split_pattern: Annotated[str | None, AfterValidator(_check)] = Field(
        r"\n\n", description="regular expression where texts are split, its matches are dropped; null for none"
    )
    overlap_len: int = Field(0, ge=0, description="how much of a chunk that was cut by length the next one repeats")
    tokenizer: ModelPath | None = Field(
        None, description="tokenizer whose tokens count: path or hub id; characters count without it"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the tokenizer")

    @classmethod
    def needed_extras(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """What a tokenizer needs, where there is one."""
        return ("models",) if raw.get("tokenizer") else cls.extras

    @model_validator(mode="after")
    def _bounds(self) -> TextChunkMapper:
        if self.max_len is None and self.split_pattern is None:
            raise ValueError("max_len and split_pattern cannot both be null")
        if self.max_len is not None and self.overlap_len >= self.max_len:
            raise ValueError("overlap_len must be less than max_len")
        return self

    def load(self) -> Any:
        """Returns the tokenizer, if one is configured.

        Raises:
            MissingExtraError: transformers is not installed.
            UserError: the tokenizer cannot be loaded.
        """
        if self.tokenizer is None:
            return None
        try:
            from transformers import AutoTokenizer
        except ModuleNotFoundError as error:
            raise MissingExtraError("transformers", "models", "text_chunk_mapper's tokenizer") from error
        try:
            path, commit = pinned(os.path.expanduser(self.tokenizer))
            revision = {"revision": commit, "code_revision": commit} if commit else {}
            if self.trust_remote_code:
                warn_unpinned("text_chunk_mapper: tokenizer", self.tokenizer, hub_commit(self.tokenizer))
            return AutoTokenizer.from_pretrained(path, trust_remote_code=self.trust_remote_code, **revision)
        except (OSError, ValueError) as error:
            raise UserError(
                f"text_chunk_mapper.tokenizer: '{self.tokenizer}' cannot be loaded (give a folder with a tokenizer, "
                f"or a hub id that this machine can reach): {error}"
            ) from error

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns a batch with one row per chunk, in order."""
        chunks = [list(self._chunks(text, state)) for text in batch.texts]
        if all(of_row == [text] for of_row, text in zip(chunks, batch.texts, strict=True)):
            return batch
        rows = pa.array(np.repeat(np.arange(batch.num_rows), [len(of_row) for of_row in chunks]))
        text, schema = batch.keys.text, batch.table.schema
        texts = pa.array([chunk for of_row in chunks for chunk in of_row], schema.field(text).type)
        columns = [texts if name == text else batch.table.column(name).take(rows) for name in schema.names]
        stats = {name: values.take(rows) for name, values in batch.stats.items()}
        return replace(batch, table=pa.Table.from_arrays(columns, schema=schema), stats=stats, _views={})

    def _chunks(self, text: str, tokenizer: Any) -> Iterator[str]:
        if self.max_len is None:
            return _parts(text, self.split_pattern or "")
        if self.split_pattern is None:
            return _pieces(text, self.max_len, self.overlap_len, tokenizer)
        pattern = re.compile(self.split_pattern)
        if tokenizer is None:
            return _cut_characters(text, pattern, self.max_len, self.overlap_len)
        return _cut_tokens(text, pattern, self.max_len, self.overlap_len, tokenizer)


def _parts(text: str, pattern: str) -> Iterator[str]:
    """What stands between the matches; groups of the pattern are parts of their own, as `re.split` has it."""
    return (part for part in re.split(pattern, text) if part is not None and part.strip())


def _pieces(text: str, size: int, overlap: int, tokenizer: Any) -> Iterator[str]:
    units = tokenizer.encode(text) if tokenizer else text
    if len(units) <= size:
        yield text
        return
    for start in range(0, len(units), size - overlap):
        piece = units[start : start + size]
        yield tokenizer.decode(piece) if tokenizer else piece


def _last_match(pattern: re.Pattern[str], chunk: str) -> tuple[int, int] | None:
    """Start and end of the last match; one that ends at 0 would cut nothing off."""
    spans = [match.span() for match in pattern.finditer(chunk) if match.end()]
    return spans[-1] if spans else None


def _cut_characters(text: str, pattern: re.Pattern[str], size: int, overlap: int) -> Iterator[str]:
    begin = 0
    while len(text) - begin > size:
        chunk = text[begin : begin + size]
        cut, resume = _last_match(pattern, chunk) or (size, size - overlap)
        begin += resume
        if chunk[:cut].strip():
            yield chunk[:cut]
    yield text[begin:]


def _cut_tokens(text: str, pattern: re.Pattern[str], size: int, overlap: int, tokenizer: Any) -> Iterator[str]:
    """As `_cut_characters`; the text is encoded again after each cut, as in Data-Juicer.

    Raises:
        ValueError: the tokens that the tokenizer adds to every text leave no room to go on.
    """
    tokens = tokenizer.encode(text)
    steps_left = len(tokens)
    while len(tokens) > size:
        if steps_left == 0:
            raise ValueError(f"chunks of {size} tokens, {overlap} of them repeated, do not get to the end of the text")
        steps_left -= 1
        chunk = tokenizer.decode(tokens[:size])
        if span := _last_match(pattern, chunk):
            chunk, text = chunk[: span[0]], text[span[1] :]
        else:
            text = tokenizer.decode(tokens[size - overlap :])
        if chunk.strip():
            yield chunk
        tokens = tokenizer.encode(text)
    yield text
