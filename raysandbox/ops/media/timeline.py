"""Which frames of a video are wanted: computed from the times of its packets, before anything is decoded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from raysandbox.ops.batch import FrameRequest

__all__ = ["Timeline"]


@dataclass(frozen=True)
class Timeline:
    """The frames of a video stream, in the order in which they are shown.

    Attributes:
        pts: int64, presentation time of each frame in units of `time_base`.
        keys: bool, whether it is a key frame.
        time_base: seconds per unit.
        duration: seconds that the container says.
        rate: frames per second that the container says, as FFmpeg guesses it; 0 where it does not.
        said: number of frames that the container says; 0 where it does not.
        counted: whether frames are told apart by counting them, since their times are not reliable.
    """

    pts: np.ndarray
    keys: np.ndarray
    time_base: Fraction
    duration: Fraction
    rate: Fraction
    said: int
    counted: bool = False

    def __len__(self) -> int:
        return len(self.pts)

    def wanted(self, request: FrameRequest) -> list[int]:
        """Indices of the frames of a request; ascending, may repeat.

        Raises:
            ValueError: a rate is asked for and the container says none.
        """
        if request.segment:
            pieces = self._pieces(request.segment)
            whole = replace(request, segment=0.0)
            return [first + index for first, piece in pieces for index in piece.wanted(whole)]
        if request.method == "all_frames":
            return list(range(len(self)))
        if request.method == "all_keyframes":
            return np.flatnonzero(self.keys).tolist() or [0]
        return self._uniform(request.count) if request.method == "uniform" else self._stepped(request.fps)

    def key_before(self, index: int) -> int:
        """Index of the last key frame that is not after a frame; 0 where there is none."""
        keys = np.flatnonzero(self.keys[: index + 1])
        return int(keys[-1]) if len(keys) else 0

    def _pieces(self, seconds: float) -> Iterator[tuple[int, Timeline]]:
        """Pieces of equal length with the index of their first frame; as in Data-Juicer without the last one."""
        starts = np.arange(0, float(self.duration), seconds) / float(self.time_base)
        edges = np.searchsorted(self.pts, starts).tolist()
        for start, first, last in zip(starts.tolist(), edges, edges[1:], strict=False):
            if first < last:
                keys = self.keys[first:last].copy()
                keys[0] = True
                duration = Fraction(seconds)
                yield first, replace(self, pts=self.pts[first:last] - int(start), keys=keys, duration=duration, said=0)

    def _uniform(self, count: int) -> list[int]:
        """As Data-Juicer's `extract_video_frames_uniformly`: from the first moment to the last, or the middle.

        A moment's frame is the first one from it on. Moments between the same two key frames that
        share a frame take the following ones instead; past the end it is the last frame, once.
        """
        count = min(count, self.said or len(self))
        step = self.duration / max(count - 1, 1)
        moments = [self.duration / 2] if count == 1 else [step * index for index in range(count)]
        seconds = [float(pts * self.time_base) for pts in self.pts[self.keys].tolist()]
        later_keys = seconds[1:] if 0.0 in seconds else seconds
        times = self.pts.tolist()
        picked: list[int] = []
        group = after = 0
        for moment in moments:
            if (own := bisect_right(later_keys, moment)) != group:
                group, after = own, 0
            index = max(after, bisect_left(times, moment / self.time_base))
            picked.append(min(index, len(times) - 1))
            if index >= len(times):
                break
            after = index + 1
        return picked

    def _stepped(self, fps: float) -> list[int]:
        """As Data-Juicer's `video_motion_score_filter` reads through OpenCV: frames 0 and 1, then every step-th."""
        if not self.rate:
            raise ValueError("it says no frame rate")
        total = self.said or round(self.duration * self.rate)
        step = max(min(round(float(self.rate) / min(fps, float(self.rate))), total - 1), 1)
        return [index for index in (0, 1, *range(step, total, step)) if index < len(self)]
