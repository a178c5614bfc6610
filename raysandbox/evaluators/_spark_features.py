"""Texts to hashed word counts, exactly as Spark ML's `Tokenizer` and `HashingTF` make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import mmh3
import numpy as np

from raysandbox.evaluators._java_text import java_lower

__all__ = ["Features", "piece_features", "word_features"]


@dataclass(frozen=True, eq=False)
class Features:
    """Feature numbers of the words of each text, in order, one entry per word.

    Attributes:
        starts: where each text's words start, shape (rows + 1,).
        indices: feature number of each word, shape (words,).
        num_features: size of the feature space.
    """

    starts: np.ndarray
    indices: np.ndarray
    num_features: int

    def distinct(self) -> Features:
        """Each feature at most once per text: `HashingTF(binary=True)`."""
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        keys = np.unique(rows * self.num_features + self.indices)
        starts = np.searchsorted(keys, np.arange(len(self.starts)) * self.num_features)
        return Features(starts, (keys % self.num_features).astype(np.int32), self.num_features)


def word_features(texts: Iterable[str], num_features: int) -> Features:
    """Features of the lower-cased words of each text."""
    from raysandbox.evaluators import _word_hash

    encoded = [java_lower(text).encode() for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in encoded], dtype=np.int64)])
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    starts = _word_hash.count_words(data, offsets)
    return Features(starts, _word_hash.hash_words(data, offsets, starts, num_features), num_features)


def piece_features(texts: Iterable[str], pieces_of: Callable[[str], list[str]], num_features: int) -> Features:
    """Features of the pieces into which a tokenizer splits each text.

    Args:
        texts: the texts.
        pieces_of: returns the pieces of one text, as text.
        num_features: size of the feature space.
    """

    @cache  # a vocabulary has some ten thousand pieces
    def feature_of(piece: str) -> int:
        return mmh3.hash(piece.encode(), 42) % num_features

    rows = [[feature_of(piece) for piece in pieces_of(text)] for text in texts]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    return Features(starts, np.fromiter((item for row in rows for item in row), np.int32), num_features)
