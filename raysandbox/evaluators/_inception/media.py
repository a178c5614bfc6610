"""The files that a data set names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.core.runner import Scorers
from raysandbox.ops.batch import FOLDER_COLUMN

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
        table = scorers.score(self.data_path, _Paths(tuple(columns)), paths_as_written=True)
        rows = table.to_pylist()
        files = [
            MediaFile(self._located(path, row[FOLDER_COLUMN]), is_image)
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

    def _located(self, path: str, folder: str) -> str:
        """Where a path is: relative ones start at `mm_dir`, at their row's data set, or at the current directory."""
        starts = filter(None, [self.mm_dir, folder, os.getcwd()])
        tried = [os.path.abspath(os.path.join(start, path)) for start in starts]
        return next((each for each in tried if os.path.exists(each)), tried[0])

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
        """Returns each column as lists of paths, empty where a row has none, and where relative ones start."""
        found = {name: pa.array(_paths(table, name), pa.list_(pa.string())) for name in self.columns}
        return {**found, FOLDER_COLUMN: table.column(FOLDER_COLUMN)}


def _paths(table: pa.Table, name: str) -> list[list[str]]:
    if name not in table.column_names:
        return [[] for _ in range(table.num_rows)]
    return [
        [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, str) and path]
        for value in table.column(name).to_pylist()
    ]
