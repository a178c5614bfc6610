"""Keeps rows by how much moves in their videos."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveFloat, PositiveInt

from raysandbox.core.errors import MissingExtraError
from raysandbox.core.registry import register
from raysandbox.ops.base import Stat
from raysandbox.ops.batch import Batch, FrameRequest
from raysandbox.ops.media import map_videos, stored_frames
from raysandbox.ops.media_filter import MediaFilter, numbers

__all__ = ["VideoMotionScoreFilter"]

_NO_SCORE = -1.0  # of a video with fewer than two frames


@register("video_motion_score_filter")
class VideoMotionScoreFilter(MediaFilter):
    """Keeps rows whose videos have a motion score within a range: how far their pixels move, by optical flow."""

    no_meaning_here: ClassVar[frozenset[str]] = MediaFilter.no_meaning_here | {"optical_flow_key"}
    reads: ClassVar[tuple[str, ...]] = ("video",)
    example: ClassVar[Mapping[str, Any]] = {"min_score": 3.0, "max_score": 20.0, "sampling_fps": 2}
    stats: ClassVar[tuple[Stat, ...]] = (Stat("video_motion_score", "min_score", "max_score", -1),)

    min_score: float | None = Field(0.25, description="smallest motion score")
    max_score: float | None = Field(sys.float_info.max, description="largest motion score")
    frame_field: str | None = Field(
        None, description="column of frames (lists of paths or bytes per video) to take instead of the videos"
    )
    sampling_fps: PositiveFloat = Field(2, description="frames per second to compare")
    original_fps: PositiveFloat | None = Field(
        None, description="frames per second of `frame_field`, to take `sampling_fps` of them; all by default"
    )
    size: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1, max_length=2)] | None = Field(
        None, description="pixels of the shorter edge, or of both edges, that frames are brought to before"
    )
    max_size: PositiveInt | None = Field(None, description="most pixels of the longer edge after `size`")
    divisible: PositiveInt = Field(1, description="what both edges must be divisible by after resizing")
    relative: bool = Field(False, description="divide the score by the diagonal of the frames")
    if_output_optical_flow: Literal[False] = Field(False, description="true is not in this version")
    pyr_scale: float = Field(0.5, description="Farnebäck: size of each level of the pyramid over that below")
    levels: int = Field(3, description="Farnebäck: levels of the pyramid")
    winsize: int = Field(15, description="Farnebäck: edge of the averaging window in pixels")
    iterations: int = Field(3, description="Farnebäck: iterations at each level")
    poly_n: int = Field(5, description="Farnebäck: edge of the neighbourhood that a polynomial is fitted to")
    poly_sigma: float = Field(1.2, description="Farnebäck: width of the Gaussian in that fit")
    flags: int = Field(0, description="Farnebäck: flags of OpenCV")

    def load(self) -> None:
        """Keeps OpenCV on one thread: the engine has a worker for every CPU.

        Raises:
            MissingExtraError: OpenCV is not installed.
        """
        if find_spec("cv2") is None:
            raise MissingExtraError("opencv-python-headless", "media", self.type_name)
        import cv2

        cv2.setNumThreads(1)

    def frame_requests(self) -> tuple[FrameRequest, ...]:
        """Frames at `sampling_fps`, in grey, unless they stand in a column."""
        return () if self.frame_field else (self._request(),)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns `video_motion_score`: pixels from frame to frame, on average over each pair of them; or -1."""
        if self.frame_field and self.frame_field in batch.table.column_names:
            videos = stored_frames(batch, self.frame_field, self._request(), self._step())
            scores = [[self._score(frames) for frames in row] for row in videos]
        else:
            key = (*self._flow_arguments().values(), self.relative)
            scores = map_videos(batch, self._request(), key, lambda _, frames: self._score(frames))
        return {"video_motion_score": numbers(scores, float)}

    def _request(self) -> FrameRequest:
        edges = [self.size] if isinstance(self.size, int) else self.size
        return FrameRequest(
            "fps",
            fps=self.sampling_fps,
            gray=True,
            size=tuple(edges) if edges else None,
            max_size=self.max_size,
            divisible=self.divisible,
        )

    def _step(self) -> int:
        """Every how many-th of the stored frames to take."""
        if self.original_fps is None:
            return 1
        return max(round(self.original_fps / min(self.sampling_fps, self.original_fps)), 1)

    def _flow_arguments(self) -> dict[str, Any]:
        names = ("pyr_scale", "levels", "winsize", "iterations", "poly_n", "poly_sigma", "flags")
        return {name: getattr(self, name) for name in names}

    def _score(self, frames: Iterable[np.ndarray]) -> float:
        """The score of one video.

        Raises:
            ValueError: OpenCV refuses the frames, which differ in size, or the parameters.
        """
        import cv2

        scores = []
        for before, after in pairwise(frames):
            flow = np.zeros((*after.shape, 2), np.float32)
            try:
                cv2.calcOpticalFlowFarneback(before, after, flow, **self._flow_arguments())
            except cv2.error as error:
                sizes = f"frames of {before.shape} and {after.shape} pixels"
                raise ValueError(f"no optical flow between {sizes}: {error}") from None
            score = float(np.mean(cv2.magnitude(flow[..., 0], flow[..., 1])))
            scores.append(score / float(np.hypot(*after.shape)) if self.relative else score)
        return float(np.mean(scores)) if scores else _NO_SCORE
