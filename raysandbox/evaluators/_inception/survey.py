"""How many frames files have and what their content is called, found out by the job's workers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raysandbox.core.errors import JobFailed
from raysandbox.core.keys import code_version, digest
from raysandbox.core.runner import Workers
from raysandbox.evaluators._inception.cache import ArrayCache
from raysandbox.evaluators._inception.frames import UnreadableFileError, Window, frame_count
from raysandbox.evaluators._inception.media import MediaFile, listed

__all__ = ["Known", "survey"]

_UNIT = 64  # files


@dataclass(frozen=True)
class Known:
    """What is known of a file.

    Attributes:
        frames: how many it has; 1 of an image.
        digest: SHA-256 of its content.
    """

    frames: int
    digest: str


@dataclass(frozen=True)
class _Survey:
    """Looks at files; a `core.runner.UnitWork`."""

    def load(self, device: str) -> None:
        """Nothing is needed."""

    def run(self, unit: Sequence[MediaFile], state: None) -> list[Known | str]:
        """Returns what is known of each file of a unit, or why it cannot be read."""
        return [_looked_at(file) for file in unit]


def _looked_at(file: MediaFile) -> Known | str:
    try:
        frames = 1 if file.is_image else frame_count(file.path)
    except UnreadableFileError as error:
        return str(error)
    with open(file.path, "rb") as content:
        return Known(frames, hashlib.file_digest(content, "sha256").hexdigest())


def survey(files: Sequence[MediaFile], workers: Workers, cache: ArrayCache) -> dict[MediaFile, Known]:
    """Looks at every file.

    Args:
        files: may repeat.
        workers: do it.
        cache: keeps what was found under path, size and time of change.

    Raises:
        JobFailed: files cannot be read; the message names the first ones.
    """
    distinct = list(dict.fromkeys(files))
    units = [distinct[first : first + _UNIT] for first in range(0, len(distinct), _UNIT)]
    keys = [_key(unit) for unit in units]
    known = [cache.find(key) for key in keys]
    found = {file: fact for unit, table in zip(units, known, strict=True) if table for file, fact in _read(unit, table)}
    missing = [index for index, table in enumerate(known) if table is None]
    faults: list[str] = []
    for position, answers in workers.map(_Survey(), [units[index] for index in missing], description="survey"):
        index = missing[position]
        pairs = list(zip(units[index], answers, strict=True))
        faults += [f"{file.path} {answer}" for file, answer in pairs if isinstance(answer, str)]
        good = [answer for answer in answers if not isinstance(answer, str)]
        if len(good) == len(pairs):
            found.update(pairs)
            frames, digests = [fact.frames for fact in good], [fact.digest for fact in good]
            cache.put(keys[index], {"frames": np.array(frames, np.int64), "digests": np.array(digests)})
    if faults:
        raise JobFailed(
            f"{len(faults)} of {len(distinct)} files cannot be read: {listed(sorted(faults))} (mend them, or take "
            f"them out of the data)"
        )
    return found


def _key(unit: Sequence[MediaFile]) -> str:
    return digest(["inception survey", code_version(Window), [_stamp(file) for file in unit]])


def _stamp(file: MediaFile) -> list[Any]:
    stat = Path(file.path).stat()
    return [os.path.realpath(file.path), stat.st_size, stat.st_mtime_ns, file.is_image]


def _read(unit: Sequence[MediaFile], table: Any) -> Iterator[tuple[MediaFile, Known]]:
    facts = zip(table["frames"].tolist(), table["digests"].tolist(), strict=True)
    return ((file, Known(*fact)) for file, fact in zip(unit, facts, strict=True))
