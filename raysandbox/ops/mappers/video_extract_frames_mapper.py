"""Writes frames of videos as pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt, model_validator

from raysandbox.core.files import atomic_dir
from raysandbox.core.registry import register
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch, FrameRequest
from raysandbox.ops.media import file_lists, map_videos
from raysandbox.ops.media.derived import derived_name, with_column, with_lists

__all__ = ["VideoExtractFramesMapper"]


@register("video_extract_frames_mapper")
class VideoExtractFramesMapper(Mapper):
    """Adds a column with frames of each video, as the paths of JPEG files or as their bytes."""

    no_meaning_here: ClassVar[frozenset[str]] = Mapper.no_meaning_here | {"video_backend"}
    reads: ClassVar[tuple[str, ...]] = ("text", "video")
    extras: ClassVar[tuple[str, ...]] = ("media",)
    example: ClassVar[Mapping[str, Any]] = {"frame_sampling_method": "uniform", "output_format": "bytes"}

    frame_sampling_method: Literal["all_keyframes", "all_frames", "uniform"] = Field(
        "all_keyframes", description="key frames, all frames, or `frame_num` from the first to the last"
    )
    output_format: Literal["path", "bytes"] = Field("path", description="what the column holds")
    frame_num: PositiveInt = Field(3, description="number of frames, for uniform")
    duration: float = Field(0, ge=0, description="seconds of the pieces that the method applies to; 0 for the whole")
    frame_dir: str | None = Field(None, description="folder of the files; required unless bytes are wanted")
    frame_key: str | None = Field(None, description="an older name of frame_field, which it replaces")
    frame_field: str = Field("video_frames", description="column for the frames: per video a list")
    legacy_split_by_text_token: bool = Field(
        True, description="take the videos that the text names by <__dj__video>; the others have no frames"
    )

    @model_validator(mode="after")
    def _has_a_folder(self) -> VideoExtractFramesMapper:
        if self.output_format == "path" and self.frame_dir is None:
            raise ValueError("frame_dir is required: name a folder, or set output_format: bytes")
        return self

    def frame_requests(self) -> tuple[FrameRequest, ...]:
        """The frames of the method."""
        segment = 0.0 if self.frame_sampling_method == "all_frames" else self.duration
        count = self.frame_num if self.frame_sampling_method == "uniform" else 0
        return (FrameRequest(self.frame_sampling_method, count=count, segment=segment),)

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with the column of frames."""
        videos = file_lists(batch, "video")
        named = videos
        if self.legacy_split_by_text_token:
            mark = batch.keys.tokens.video
            named = [row[: text.count(mark)] for row, text in zip(videos, batch.texts, strict=True)]
        (request,) = self.frame_requests()
        write = self._files if self.output_format == "path" else self._bytes
        found = map_videos(
            with_lists(batch, batch.keys.video, named), request, (self.output_format, self.frame_dir), write
        )
        frames = [row + [[]] * (len(all_videos) - len(row)) for row, all_videos in zip(found, videos, strict=True)]
        kind = pa.large_string() if self.output_format == "path" else pa.large_binary()
        return with_column(batch, self.frame_key or self.frame_field, pa.array(frames, pa.list_(pa.list_(kind))))

    def _files(self, path: str, frames: np.ndarray) -> list[str]:
        from PIL import Image

        parameters = self.model_dump(include={"frame_sampling_method", "frame_num", "duration"})
        folder = Path(os.path.abspath(self.frame_dir or "."), derived_name(path, parameters))
        names = [f"frame_{number}.jpg" for number in range(len(frames))]
        if not folder.exists():
            with atomic_dir(folder) as temporary:
                for name, frame in zip(names, frames, strict=True):
                    Image.fromarray(frame).save(temporary / name)
        return [str(folder / name) for name in names]

    def _bytes(self, path: str, frames: np.ndarray) -> list[bytes]:
        from PIL import Image

        found = []
        for frame in frames:
            stream = io.BytesIO()
            Image.fromarray(frame).save(stream, format="jpeg")
            found.append(stream.getvalue())
        return found
