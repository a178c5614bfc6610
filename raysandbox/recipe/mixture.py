"""Where a recipe's rows come from: one path, or several with weights."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysandbox.core.names import nameable

__all__ = ["Part", "Window", "parse_dataset_path", "parse_split", "row_quotas"]

_SPLIT = re.compile(r"([\w.-]+)(?:\[(?:(-?\d+)(%)?)?:(?:(-?\d+)(%)?)?\])?")


@dataclass(frozen=True)
class Part:
    """One part of a data set: a file, folder or glob, and its relative weight."""

    path: str
    weight: float = 1.0


@dataclass(frozen=True)
class Bound:
    """An end of a window: a number of rows or percent of them, from the end if negative."""

    value: int
    percent: bool = False

    def position(self, total: int) -> int:
        """Where it is among `total` rows."""
        position = round(self.value * total / 100) if self.percent else self.value
        return min(total, position if position >= 0 else max(0, total + position))


@dataclass(frozen=True)
class Window:
    """Consecutive rows of a part.

    Attributes:
        start: the first; None for the part's first.
        stop: the one after the last; None for the part's end.
        limit: the most rows to take; None for no limit.
    """

    start: Bound | None = None
    stop: Bound | None = None
    limit: int | None = None

    def rows(self, total: int) -> range:
        """Positions of the rows among `total` of them."""
        start = 0 if self.start is None else self.start.position(total)
        stop = total if self.stop is None else self.stop.position(total)
        if self.limit is not None:
            stop = min(stop, start + self.limit)
        return range(start, max(start, stop))

    @property
    def enough(self) -> int | None:
        """Number of rows that hold all of the window; None when that depends on how many there are."""
        bounds = [bound for bound in (self.start, self.stop) if bound is not None]
        if any(bound.percent or bound.value < 0 for bound in bounds):
            return None
        start = self.start.value if self.start else 0
        ends = [self.stop.value if self.stop else None, None if self.limit is None else start + self.limit]
        return min((end for end in ends if end is not None), default=None)


def parse_split(text: str) -> tuple[tuple[str, ...], Window | None]:
    """The names in `train`, `train+test` or `train[:10%]`, and which rows are meant.

    Raises:
        ValueError: it is none of these.
    """
    names: list[str] = []
    window = None
    words = text.split("+")
    for word in words:
        match = _SPLIT.fullmatch(word.strip())
        if match is None:
            raise ValueError(f"'{text}' is no split; write train, train+test or train[:10%]")
        name, start, start_percent, stop, stop_percent = match.groups()
        names.append(name)
        if word.strip().endswith("]"):
            if len(words) > 1:
                raise ValueError(f"'{text}' adds pieces of splits; write them as parts of their own")
            window = Window(_bound(start, start_percent), _bound(stop, stop_percent))
    return tuple(names), window


def _bound(value: str | None, percent: str | None) -> Bound | None:
    return None if value is None else Bound(int(value), percent is not None)


def parse_dataset_path(text: str) -> list[Part]:
    """Splits `0.3 a.jsonl 0.7 "b c.parquet"`; a weight left out is 1.

    A string that is the name of something that exists is one path, whatever blanks it holds.

    Raises:
        ValueError: a weight without a path, a negative weight, only zero weights, open quotes, no possible path.
    """
    if os.path.exists(text):
        return [Part(text)]
    parts: list[Part] = []
    weight: float | None = None
    for word in shlex.split(text):
        number = _number(word)
        if number is None:
            parts.append(Part(nameable(word), 1.0 if weight is None else weight))
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
