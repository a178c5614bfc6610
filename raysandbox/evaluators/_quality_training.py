"""Trains a quality classifier of one's own: good texts against poor ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.evaluators._spark_features import word_features
from raysandbox.evaluators._spark_model import HashedRegression

__all__ = ["SplitReport", "read_texts", "train"]


@dataclass(frozen=True)
class SplitReport:
    """How well a model does on one part of the data.

    Attributes:
        name: "train" or "held out".
        documents: number of texts.
        accuracy: share of texts on the right side of 0.5.
        positive_score: mean probability of the good texts.
        negative_score: mean probability of the poor texts.
    """

    name: str
    documents: int
    accuracy: float
    positive_score: float
    negative_score: float


def train(
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    num_features: int = 262_144,
    strength: float = 1.0,
    held_out: float = 0.1,
    seed: int = 42,
) -> tuple[HashedRegression, tuple[SplitReport, SplitReport]]:
    """Fits a logistic regression on hashed word counts, the pipeline that Spark would fit.

    Args:
        positive: good texts.
        negative: poor texts.
        num_features: size of the feature space.
        strength: inverse of the L2 penalty (scikit-learn's C); Spark's default has no penalty,
            which has no solution when the classes are separable, as they are in so many dimensions.
        held_out: share of either class that is kept for the report.
        seed: seed of the split.

    Returns:
        the model, and its reports on the training and the held-out texts.

    Raises:
        UserError: too few texts of a class for a split.
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "quality", "Training a quality model") from error

    features = word_features([*positive, *negative], num_features)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    test = _held_out_rows(labels, held_out, np.random.default_rng(seed))
    words = (np.ones(len(features.indices)), features.indices, features.starts)
    counts = csr_matrix(words, shape=(len(labels), num_features), copy=True)  # summing works in place
    counts.sum_duplicates()
    solver = LogisticRegression(C=strength, max_iter=1000)
    solver.fit(counts[~test], labels[~test])
    model = HashedRegression(np.ravel(solver.coef_).astype(np.float64), float(np.ravel(solver.intercept_)[0]))
    scores = model.probabilities(features)
    return model, (
        _report("train", scores[~test], labels[~test]),
        _report("held out", scores[test], labels[test]),
    )


def _held_out_rows(labels: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Marks the same share of either class, at least one text of each."""
    test = np.zeros(len(labels), dtype=np.bool_)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise UserError(f"a quality model needs at least 2 {'positive' if label else 'negative'} texts")
        size = min(max(1, round(share * len(rows))), len(rows) - 1)
        test[random.choice(rows, size, replace=False)] = True
    return test


def _report(name: str, scores: np.ndarray, labels: np.ndarray) -> SplitReport:
    return SplitReport(
        name=name,
        documents=len(labels),
        accuracy=float(np.mean((scores > 0.5) == (labels == 1))),
        positive_score=float(np.mean(scores[labels == 1])),
        negative_score=float(np.mean(scores[labels == 0])),
    )


def read_texts(paths: Iterable[Path], text_key: str) -> list[str]:
    """Texts of Parquet, JSON-lines (also compressed) or plain files with one text per line.

    Raises:
        UserError: a row has no text under `text_key`.
    """
    return [text for path in paths for text in _read_file(path, text_key)]


def _read_file(path: Path, text_key: str) -> Iterator[str]:
    suffix = next((s for s in reversed(path.suffixes) if s not in (".gz", ".zst", ".bz2")), "")
    if suffix == ".parquet":
        if text_key not in pq.read_schema(path).names:
            raise UserError(f"{path}: no column '{text_key}'; set --text-key")
        yield from pq.read_table(path, columns=[text_key]).column(text_key).drop_null().to_pylist()
        return
    with pa.input_stream(path, compression="detect") as stream:
        for number, line in enumerate(stream.read().splitlines(), start=1):
            if not line.strip():
                continue
            if suffix == ".txt":
                yield line.decode()
                continue
            row = orjson.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get(text_key), str):
                raise UserError(f"{path}:{number}: no text under '{text_key}'; set --text-key")
            yield row[text_key]
