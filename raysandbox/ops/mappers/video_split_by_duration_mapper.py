"""Cuts videos into pieces of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveFloat, model_validator

from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch, RowFaults
from raysandbox.ops.media import Job, VideoInfo, edited_videos, file_lists
from raysandbox.ops.media.derived import SOURCE_COLUMN, derived_path, with_lists
from raysandbox.ops.special_tokens import SpecialTokens

__all__ = ["VideoSplitByDurationMapper"]


class _Row(NamedTuple):
    """A row of the result: of which row it is, its text, its videos, and those that they were made of."""

    source: int
    text: str
    files: list[str] | None
    sources: list[str]


@register("video_split_by_duration_mapper")
class VideoSplitByDurationMapper(Mapper):
    """Adds rows whose videos are cut into pieces of equal length; the sound is copied."""

    no_meaning_here: ClassVar[frozenset[str]] = Mapper.no_meaning_here | {"video_backend", "ffmpeg_extra_args"}
    reads: ClassVar[tuple[str, ...]] = ("text", "video")
    changes_media: ClassVar[bool] = True
    extras: ClassVar[tuple[str, ...]] = ("media",)
    example: ClassVar[Mapping[str, Any]] = {"split_duration": 10, "keep_original_sample": False}

    split_duration: PositiveFloat = Field(10, description="seconds of each piece")
    overlap_duration: float = Field(0, ge=0, description="seconds that neighbouring pieces share")
    min_last_split_duration: float = Field(0, description="a last piece of fewer seconds is left out")
    keep_original_sample: bool = Field(True, description="keep the uncut row, before that of its pieces")
    save_dir: str | None = Field(None, description="folder of the new videos; by default beside the originals")
    output_format: Literal["path"] = Field("path", description="what stands in the row; bytes are not in this version")
    save_field: str | None = Field(None, description="column for the new videos; by default that of the old ones")
    legacy_split_by_text_token: bool = Field(
        True, description="cut the videos that the text names by <__dj__video>, and repeat the token for every piece"
    )

    @model_validator(mode="after")
    def _advances(self) -> VideoSplitByDurationMapper:
        if self.overlap_duration >= self.split_duration:
            raise ValueError("overlap_duration must be less than split_duration")
        return self

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns every row, if it is kept, and after it the row of its pieces, if it has videos.

        Raises:
            RowFaults: a video cannot be cut, or a text names more videos than its row has.
        """
        videos = file_lists(batch, "video")
        named = self._named(batch, videos)
        pieces = edited_videos(with_lists(batch, batch.keys.video, named), self._job)
        rows = [new for row in range(batch.num_rows) for new in self._rows(batch, row, videos[row], named[row], pieces)]
        taken = pa.array([row.source for row in rows], pa.int64())
        stats = {name: values.take(taken) for name, values in batch.stats.items()}
        result = replace(batch, table=batch.table.take(taken), stats=stats, _views={})
        result = with_lists(result, self.save_field or batch.keys.video, [row.files for row in rows])
        result = with_lists(result, SOURCE_COLUMN, [row.sources for row in rows])
        return result.with_texts(pa.array([row.text for row in rows], batch.table.schema.field(batch.keys.text).type))

    def _rows(
        self, batch: Batch, row: int, videos: list[str], named: list[str], pieces: Sequence[Sequence[list[str]]]
    ) -> Iterator[_Row]:
        """The rows that a row becomes."""
        text, cut = batch.texts[row], pieces[row]
        if self.keep_original_sample:
            yield _Row(row, text, None if self.save_field else videos, videos)
        if videos:
            sources = [video for video, of_video in zip(named, cut, strict=True) for _ in of_video]
            yield _Row(row, self._text(text, cut, batch.keys.tokens), list(chain(*cut)), sources)

    def _named(self, batch: Batch, videos: list[list[str]]) -> list[list[str]]:
        """The videos to cut."""
        if not self.legacy_split_by_text_token:
            return videos
        counts = [
            text.count(batch.keys.tokens.video) if row else 0 for text, row in zip(batch.texts, videos, strict=True)
        ]
        faults = {
            row: f"its text names {count} videos and it has {len(videos[row])}"
            for row, count in enumerate(counts)
            if count > len(videos[row])
        }
        if faults:
            raise RowFaults(faults)
        return [row[:count] for row, count in zip(videos, counts, strict=True)]

    def _job(self, path: str, video: VideoInfo) -> Job | None:
        if video.duration <= self.split_duration:
            return None
        parameters = self.model_dump(include={"split_duration", "overlap_duration", "min_last_split_duration"})
        stem, dot, suffix = derived_path(path, self.type_name, self.save_dir, parameters).rpartition(".")
        spans = self._spans(video.duration)
        targets = [f"{stem}_{number}{dot}{suffix}" for number in range(len(spans))]
        return Job("split", path, (tuple((*span, target) for span, target in zip(spans, targets, strict=True)),))

    def _spans(self, duration: float) -> list[tuple[float, float | None]]:
        """Start and end of every piece in seconds; the last one ends with the video."""
        spans: list[tuple[float, float | None]] = []
        for start in np.arange(0, duration, self.split_duration - self.overlap_duration).tolist():
            if start + self.split_duration < duration:
                spans.append((start, start + self.split_duration))
                continue
            if duration - start >= self.min_last_split_duration:
                spans.append((start, None))
            break
        return spans

    def _text(self, text: str, pieces: Sequence[Sequence[str]], marks: SpecialTokens) -> str:
        """The chunks of the text with a token for every piece; nothing where its tokens do not count."""
        if not self.legacy_split_by_text_token:
            return ""
        counts = iter([len(of_video) for of_video in pieces])
        chunks = [chunk.split(marks.video) for chunk in text.split(marks.eoc) if chunk.strip()]
        return "".join(
            first + "".join(marks.video * next(counts) + part for part in parts) + marks.eoc for first, *parts in chunks
        )
