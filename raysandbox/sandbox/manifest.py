"""Markers of finished jobs: a job is done when its artefacts stand and its marker is in place.

A marker is one JSON file named by the job's key, written last and by rename. It says what the
job returned and which files it made, with their digests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.files import atomic_write
from raysandbox.core.keys import DigestMemo

__all__ = ["Manifest", "Marker"]


@dataclass(frozen=True)
class Marker:
    """What is known of a finished job.

    Attributes:
        key: the job's key.
        job: its id when it ran.
        outputs: output name → value.
        writes: the outputs that its configuration names, where they really are.
        artifacts: its own folder.
        digests: file → content digest of everything it made.
        seconds: how long it took.
    """

    key: str
    job: str
    outputs: Mapping[str, Any]
    writes: Sequence[str]
    artifacts: str
    digests: Mapping[str, str]
    seconds: float


class Manifest:
    """The markers of a run.

    Args:
        folder: where they stand.
        memo: digests of files.
    """

    def __init__(self, folder: Path, memo: DigestMemo) -> None:
        self._folder = folder
        self._memo = memo

    def find(self, key: str) -> Marker | None:
        """The marker of a finished job whose artefacts still stand unchanged, or None."""
        marker = _read(self._folder / f"{key}.json")
        return None if marker is None or any(self._differing(marker.digests)) else marker

    def changed(self) -> list[str]:
        """Files that finished jobs made and that are gone, or not as the last of these jobs left them."""
        digests: dict[str, str] = {}
        for path in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            marker = _read(path)
            digests |= marker.digests if marker else {}
        return sorted(self._differing(digests))

    def _differing(self, digests: Mapping[str, str]) -> Iterator[str]:
        stands = self._memo.of_files(digests)
        return (path for (path, wanted), found in zip(digests.items(), stands, strict=True) if found != wanted)

    def digests(self, paths: Iterable[str], others: Collection[str]) -> dict[str, str]:
        """Content digests of every file at or below the paths.

        Args:
            paths: files and directories that a job made.
            others: files and directories below them that belong to somebody else: outputs of other
                jobs, the run's own state.
        """
        files = {file for path in paths for file in _files(Path(path).expanduser(), others)}
        names = sorted(map(str, files))
        found = zip(names, self._memo.of_files(names), strict=True)
        return {name: digest for name, digest in found if digest is not None}

    def write(self, marker: Marker) -> None:
        """Puts a marker in place."""
        atomic_write(self._folder / f"{marker.key}.json", json.dumps(asdict(marker), ensure_ascii=False))


def _read(path: Path) -> Marker | None:
    """A marker; None where it is absent, empty or torn: its job runs again."""
    try:
        return Marker(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _files(path: Path, others: Collection[str]) -> Iterator[Path]:
    if path.is_dir():
        for item in path.iterdir():
            if os.path.abspath(item) not in others:
                yield from _files(item, others)
    else:
        yield path
