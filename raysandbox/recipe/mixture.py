"""Where a recipe's rows come from: one path, or several with weights."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Part", "parse_dataset_path", "row_quotas"]


@dataclass(frozen=True)
class Part:
    """One part of a data set: a file, folder or glob, and its relative weight."""

    path: str
    weight: float = 1.0


def parse_dataset_path(text: str) -> list[Part]:
    """Splits `0.3 a.jsonl 0.7 "b c.parquet"`; a weight left out is 1.

    A string that is the name of something that exists is one path, whatever blanks it holds.

    Raises:
        ValueError: a weight without a path, a negative weight, only zero weights, open quotes.
    """
    if os.path.exists(text):
        return [Part(text)]
    parts: list[Part] = []
    weight: float | None = None
    for word in shlex.split(text):
        number = _number(word)
        if number is None:
            parts.append(Part(word, 1.0 if weight is None else weight))
            weight = None
        elif weight is not None:
            raise ValueError(f"weight {weight:g} is followed by the weight {word}, not by a path")
        elif not number >= 0 or number == float("inf"):
            raise ValueError(f"weight {word} is not a number of 0 or more")
        else:
            weight = number
    if weight is not None:
        raise ValueError(f"weight {weight:g} has no path after it")
    if parts and not any(part.weight for part in parts):
        raise ValueError("every weight is 0")
    return parts


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def row_quotas(weights: Sequence[float], available: Sequence[int], wanted: int | None) -> list[int]:
    """How many rows each part gives.

    With `wanted` (Data-Juicer's `max_sample_num`) parts share that number by weight, rounded up in
    order until it is used up, each limited by what it has. Without it equal weights take everything,
    unequal ones the largest mix of those proportions that repeats no row.
    """
    shares = np.asarray(weights, dtype=np.float64)
    shares = shares / shares.sum()
    if wanted is None:
        if len(set(weights)) <= 1:
            return list(available)
        total = min(rows / share for rows, share in zip(available, shares, strict=True) if share > 0)
        return [min(rows, round(total * share)) for rows, share in zip(available, shares, strict=True)]
    quotas: list[int] = []
    for rows, share in zip(available, shares, strict=True):
        left = wanted - sum(quotas)
        quotas.append(min(rows, left, int(np.ceil(wanted * share))))
    return quotas
