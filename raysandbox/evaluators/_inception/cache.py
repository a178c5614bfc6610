"""Arrays by the content that they were computed from, shared by runs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raysandbox.core.disk import dispensable
from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_path

__all__ = ["ArrayCache"]


class ArrayCache:
    """One `.npz` file per key; its checksums are looked at when it is read.

    Args:
        folder: where the files are.
        readable: whether files of earlier runs may be read; this one's own always are.
    """

    def __init__(self, folder: Path, *, readable: bool = True) -> None:
        self._folder, self._readable = folder, readable
        self._own: set[str] = set()
        self._in_memory: dict[str, Mapping[str, np.ndarray]] = {}  # what the disk did not take

    def find(self, key: str) -> Mapping[str, np.ndarray] | None:
        """The arrays of a key; None where there are none, or where they are damaged."""
        if key in self._in_memory:
            return self._in_memory[key]
        if not self._readable and key not in self._own:
            return None
        try:
            # NumPy leaves a damaged file open when it opens it itself.
            with self._file(key).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def get(self, key: str) -> Mapping[str, np.ndarray]:
        """The arrays of a key that is there.

        Raises:
            JobFailed: they were removed meanwhile.
        """
        arrays = self.find(key)
        if arrays is None:
            raise JobFailed(f"{self._file(key)} was removed or damaged while it was needed: run again")
        return arrays

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps arrays under a key."""
        with dispensable("the cache of features", self._file(key)):
            with atomic_path(self._file(key)) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            self._own.add(key)
            return
        self._in_memory[key] = dict(arrays)

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npz"
