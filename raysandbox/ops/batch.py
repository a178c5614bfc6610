"""A batch of rows with the views that its operators share: computed once, kept while they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa

from raysandbox.ops.special_tokens import SpecialTokens

__all__ = [
    "FOLDER_COLUMN",
    "JSON_TEXT",
    "MEDIA_VIEW",
    "META_COLUMN",
    "ROW_TIMEOUT_S",
    "STATS_COLUMN",
    "SUFFIX_COLUMN",
    "Batch",
    "FieldKeys",
    "FrameRequest",
    "RowAligned",
    "RowFaults",
]

STATS_COLUMN = "__dj__stats__"
META_COLUMN = "__dj__meta__"
FOLDER_COLUMN = "__dj__folder__"  # where relative paths in a row start, for scorers that see paths as they are written
SUFFIX_COLUMN = "__dj__suffix__"  # of the file that a row was read from, for operators that read "suffix"
# Marks a column of JSON texts: its values have no common Arrow type.
JSON_TEXT = {b"raysandbox": b"json"}
ROW_TIMEOUT_S = 60.0
MEDIA_VIEW = "media"  # what is known of media files, by path

T = TypeVar("T")


@dataclass(frozen=True)
class FieldKeys:
    """Names of the columns that operators read, and the marks in texts, as a recipe sets them."""

    text: str = "text"
    image: str = "images"
    video: str = "videos"
    audio: str = "audios"
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


@dataclass(frozen=True)
class FrameRequest:
    """Frames of a video that an operator looks at.

    Attributes:
        method: "all_keyframes"; "all_frames"; "uniform", `count` of them from the first to the last;
            "fps", `fps` of them per second as `video_motion_score_filter` steps.
        count: number of frames, for "uniform".
        fps: frames per second, for "fps".
        gray: luminance only, as OpenCV's BGR2GRAY, instead of RGB.
        size: (height, width) bounds as `video_motion_score_filter` takes them, None for the original size.
        max_size: longest edge after `size`.
        divisible: what both edges must be divisible by.
        segment: seconds of the pieces that "all_keyframes" and "uniform" apply to, 0 for the whole video.
    """

    method: Literal["all_keyframes", "all_frames", "uniform", "fps"]
    count: int = 0
    fps: float = 0.0
    gray: bool = False
    size: tuple[int, ...] | None = None
    max_size: int | None = None
    divisible: int = 1
    segment: float = 0.0


class RowFaults(Exception):
    """Some rows of a batch cannot be processed, and it is known which: the others go on.

    Attributes:
        faults: index of the row in the batch → reason.
    """

    def __init__(self, faults: Mapping[int, str]) -> None:
        self.faults = faults
        super().__init__(faults)

    def __str__(self) -> str:
        return "; ".join(self.faults.values())


@runtime_checkable
class RowAligned(Protocol):
    """A view with one entry per row that can drop rows by itself."""

    def select_rows(self, keep: np.ndarray) -> Any:
        """Returns the view of the rows where `keep` (bool, one per row) holds."""
        ...


@dataclass(frozen=True)
class Batch:
    """Rows of an Arrow table, their statistics so far, and shared views of their content.

    Immutable: operators return new batches. Views (words, lines, code points, frames …) are
    memoised per batch; `select` carries them over, replacing the text drops them.

    Attributes:
        table: the rows, without the statistics column.
        keys: column names.
        stats: statistic name → Arrow array of one value per row.
        requests: frames that this and later operators will ask for, so that one decode serves them all.
        row_timeout_s: seconds that decoding one media file may take.
    """

    table: pa.Table
    keys: FieldKeys = field(default_factory=FieldKeys)
    stats: Mapping[str, pa.Array] = field(default_factory=dict)
    requests: frozenset[FrameRequest] = frozenset()
    row_timeout_s: float = ROW_TIMEOUT_S
    _views: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.table.num_rows

    @classmethod
    def from_table(cls, table: pa.Table, keys: FieldKeys | None = None) -> Batch:
        """A batch of a table whose statistics column, if any, becomes the batch's statistics.

        Of rows that a grouper put together it is a list, and a column like the others.
        """
        keys = keys or FieldKeys()
        if STATS_COLUMN not in table.column_names or pa.types.is_list(table.schema.field(STATS_COLUMN).type):
            return cls(table, keys)
        struct = table.column(STATS_COLUMN).combine_chunks()
        stats = {}
        if pa.types.is_struct(struct.type):
            stats = {name: struct.field(name) for name in (f.name for f in struct.type)}
        return cls(table.drop_columns([STATS_COLUMN]), keys, stats)

    def to_table(self, *, with_stats: bool) -> pa.Table:
        """The rows, with the statistics as the struct column `__dj__stats__` when asked."""
        if not with_stats or not self.stats:
            return self.table
        struct = pa.StructArray.from_arrays(list(self.stats.values()), names=list(self.stats))
        return self.table.append_column(STATS_COLUMN, struct)

    @property
    def texts(self) -> list[str]:
        """The text column as Python strings."""
        return self.view("texts", lambda: self.table.column(self.keys.text).to_pylist())

    def view(self, name: Any, make: Callable[[], T]) -> T:
        """Returns the shared view `name`, making it on first use.

        A view must have one entry per row: a list, a NumPy array whose first axis is rows, or a
        `RowAligned`. Its name must say everything that it depends on besides the batch.
        """
        if name not in self._views:
            self._views[name] = make()
        return self._views[name]

    def has_view(self, name: Any) -> bool:
        """Whether the view `name` has been made."""
        return name in self._views

    def select(self, keep: np.ndarray) -> Batch:
        """The rows where `keep` (bool, one per row) holds; views and statistics go along."""
        if keep.all():
            return self
        mask = pa.array(keep)
        return replace(
            self,
            table=self.table.filter(mask),
            stats={name: values.filter(mask) for name, values in self.stats.items()},
            _views={name: _select_view(view, keep) for name, view in self._views.items()},
        )

    def with_texts(self, texts: list[str] | pa.Array | pa.ChunkedArray) -> Batch:
        """The same rows with other texts; views of the old texts are dropped, those of media stay."""
        column = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.large_string())
        index = self.table.column_names.index(self.keys.text)
        views = {name: view for name, view in self._views.items() if name == MEDIA_VIEW}
        if isinstance(texts, list):
            views["texts"] = texts
        return replace(self, table=self.table.set_column(index, self.keys.text, column), _views=views)

    def with_keys(self, keys: FieldKeys) -> Batch:
        """The same rows as an operator with other columns sees them; what is known of media files stays."""
        views = {name: view for name, view in self._views.items() if name == MEDIA_VIEW}
        return replace(self, keys=keys, _views=views)

    def with_stats(self, stats: Mapping[str, pa.Array]) -> Batch:
        """The same rows with more statistics."""
        return replace(self, stats={**self.stats, **stats})


def _select_view(view: Any, keep: np.ndarray) -> Any:
    if isinstance(view, RowAligned):
        return view.select_rows(keep)
    if isinstance(view, np.ndarray):
        return view[keep]
    return [item for item, kept in zip(view, keep.tolist(), strict=True) if kept]
