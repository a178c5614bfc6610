"""The files that a data set names."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.core.runner import Scorers

__all__ = ["MediaFile", "Source", "listed"]

_NAMED = 5  # items that a message names


def listed(items: Sequence[str]) -> str:
    """The first items of a list, for a message."""
    return "; ".join(items[:_NAMED]) + ("; …" if len(items) > _NAMED else "")


@dataclass(frozen=True)
class MediaFile:
    """A file that a row names.

    Attributes:
        path: absolute.
        is_image: whether it stands in the column of images.
    """

    path: str
    is_image: bool


@dataclass(frozen=True)
class Source:
    """Where the files of a set are named.

    Attributes:
        name: prefix of its keys in the configuration: fake or real.
        data_path: file, folder, glob or weighted mix of rows.
        mm_dir: folder that relative paths start from; "" for the folder of the data.
        video_key: column of videos, a list of paths or one path.
        image_key: column of images; None where they are not looked at.
    """

    name: str
    data_path: str
    mm_dir: str
    video_key: str
    image_key: str | None

    def files(self, scorers: Scorers) -> list[MediaFile]:
        """The files of all rows, in order; one that is named twice counts twice.

        Raises:
            JobFailed: no row names a file, or files are missing.
        """
        columns = {name: name == self.image_key for name in (self.video_key, self.image_key) if name}
        table = scorers.score(self.data_path, _Paths(tuple(columns)))
        rows = table.to_pylist()
        folders = _folders(self.data_path)
        files = [
            MediaFile(self._located(path, folders), is_image)
            for row in rows
            for name, is_image in columns.items()
            for path in row[name]
        ]
        if not files:
            raise JobFailed(
                f"{self.name}_data_path: {self.data_path} names no files: none of its {len(rows)} rows has a path in "
                f"column {' or '.join(columns)} (set video_key{' or image_key' if self.image_key else ''} to the "
                f"column that holds them)"
            )
        self._require(files)
        return files

    def _located(self, path: str, folders: Sequence[str]) -> str:
        """Where a path is: readers have let relative ones start at the data's folder already."""
        inside = next((os.path.relpath(path, folder) for folder in folders if _is_below(path, folder)), path)
        own, other = os.path.abspath(path), os.path.abspath(os.path.join(self.mm_dir, inside))
        first, second = (other, own) if self.mm_dir else (own, other)
        return first if os.path.exists(first) or not os.path.exists(second) else second

    def _require(self, files: Sequence[MediaFile]) -> None:
        paths = dict.fromkeys(file.path for file in files)
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing:
            raise JobFailed(
                f"{self.name}_data_path: {len(missing)} of the {len(paths)} files that {self.data_path} names are "
                f"not there: {listed(missing)} (set {self.name}_mm_dir to the folder that their paths start from)"
            )


@dataclass(frozen=True)
class _Paths:
    """Takes the paths out of rows; a `core.runner.RowScorer`."""

    columns: tuple[str, ...]

    def load(self) -> None:
        """Nothing is needed."""

    def score(self, table: pa.Table, state: None) -> Mapping[str, pa.Array]:
        """Returns each column as lists of paths, empty where a row has none."""
        return {name: pa.array(_paths(table, name), pa.list_(pa.string())) for name in self.columns}


def _paths(table: pa.Table, name: str) -> list[list[str]]:
    if name not in table.column_names:
        return [[] for _ in range(table.num_rows)]
    return [
        [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, str) and path]
        for value in table.column(name).to_pylist()
    ]


def _folders(data_path: str) -> list[str]:
    """The folders from which readers let relative paths of a data set start, the deepest first."""
    words = [data_path] if os.path.exists(data_path) else shlex.split(data_path)
    found: set[str] = set()
    for word in words:
        root = os.path.abspath(os.path.expanduser(word))
        for path in [root] if os.path.exists(root) else glob.glob(root, recursive=True):
            found.add(path if os.path.isdir(path) else os.path.dirname(path))
    return sorted(found, key=len, reverse=True)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
