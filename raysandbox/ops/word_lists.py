"""Filters by the share of a text's words that stand in a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from pydantic import Field, PositiveInt

from raysandbox.core.errors import UserError
from raysandbox.ops.base import Filter
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import Words
from raysandbox.ops.tokenization import Splitter, Tokenization, Tokenizer, encoded, load_splitter, words_of

__all__ = ["Listed", "WordListFilter", "read_word_lists"]


@dataclass(frozen=True)
class Listed:
    """What a word-list filter loads.

    Attributes:
        words: the words of the list.
        splitter: splits texts into words; None for white space.
    """

    words: frozenset[str]
    splitter: Splitter | None


class WordListFilter(Filter):
    """Computes the share of a text's words, in lower case, that stand in a list."""

    lang: str = Field("en", description="language of the list; `all` for the words of every language")
    tokenization: Tokenization = False
    tokenizer: Tokenizer = None
    use_words_aug: bool = Field(
        False, description="whether neighbouring words, joined, count as words too: for Chinese and Vietnamese"
    )
    words_aug_group_sizes: list[PositiveInt] = Field([2], description="how many neighbours to join")
    words_aug_join_char: str = Field("", description="what stands between joined words")

    def listed(self, lists: Mapping[str, Iterable[str]], source: str) -> Listed:
        """The words of the filter's language, and the tokenizer.

        Args:
            lists: words by language.
            source: where they come from, for the message.

        Raises:
            UserError: there are none of this language.
        """
        if self.lang in lists:
            words = frozenset(lists[self.lang])
        elif self.lang == "all":
            words = frozenset().union(*lists.values())
        else:
            known = ", ".join(sorted(lists))
            raise UserError(f"{self.type_name}: lang: no '{self.lang}' in {source} (there are: {known}, all)")
        return Listed(words, load_splitter(self.tokenizer if self.tokenization else None))

    def shares(self, batch: Batch, listed: Listed) -> pa.Array:
        """Share of each row's words that are listed (float64); 0 for a row without words."""
        from raysandbox.ops import kernels

        found = words_of(batch, listed.splitter, lower=True)
        if self.use_words_aug:
            rows = [self._joined(words) for words in _strings(found)]
            counts = np.array([sum(word in listed.words for word in row) for row in rows], np.int64)
            totals = np.array([len(row) for row in rows], np.int64)
        else:
            known = encoded(list(listed.words))
            counts = kernels.count_listed(
                found.codes, found.starts, found.ends, found.firsts, found.lasts, known.codes, known.starts, known.ends
            )
            totals = found.lasts - found.firsts
        return pa.array(counts / np.maximum(totals, 1))

    def _joined(self, words: list[str]) -> list[str]:
        """The words, and every group of neighbours as one word."""
        return words + [
            self.words_aug_join_char.join(words[first : first + size])
            for size in self.words_aug_group_sizes
            for first in range(len(words) - size + 1)
        ]


def _strings(found: Words) -> Iterator[list[str]]:
    for first, last in zip(found.firsts.tolist(), found.lasts.tolist(), strict=True):
        spans = zip(found.starts[first:last].tolist(), found.ends[first:last].tolist(), strict=True)
        yield [found.codes[start:end].tobytes().decode("utf-32-le") for start, end in spans]


def read_word_lists(path: str, kind: str) -> dict[str, list[str]]:
    """Reads words by language: one JSON file, or those of a folder whose names contain `kind`.

    Args:
        path: file {language: [word, …]}, or folder of such.
        kind: "stopwords" or "flagged_words".

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    place = Path(path).expanduser()
    files = sorted(place.glob(f"*{kind}*.json")) if place.is_dir() else [place]
    if not files or not files[0].exists():
        raise UserError(f"no word list at {path} (give a JSON file, or a folder of files named *{kind}*.json)")
    lists: dict[str, list[str]] = {}
    for file in files:
        for language, words in _read(file).items():
            lists.setdefault(language, []).extend(words)
    return lists


def _read(file: Path) -> dict[str, list[str]]:
    try:
        content = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict) or not all(_is_words(words) for words in content.values()):
        raise UserError(f"{file} is not a word list (write {{language: [word, …]}})")
    return content


def _is_words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
