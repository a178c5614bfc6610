"""Opening and decoding of one file with PyAV, on one thread; runs in the decoder's process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from raysandbox.ops.batch import FrameRequest
from raysandbox.ops.media.resizing import luminance
from raysandbox.ops.media.timeline import Timeline
from raysandbox.ops.media.types import AudioInfo, VideoInfo

__all__ = [
    "UNREADABLE",
    "audio_info",
    "decoded",
    "go_to",
    "opened",
    "timeline_of",
    "video_digest",
    "video_frames",
    "video_info",
]

# What a file can make FFmpeg and us raise; anything else is a mistake of ours.
UNREADABLE = (FFmpegError, EOFError, ValueError)

# Paths come with the data: neither they nor what a playlist names make FFmpeg ask the network.
_LOCAL_ONLY = {"protocol_whitelist": "file"}
_INDEXED = {"mov", "matroska"}  # containers that go to a key frame by its time; others only go near it


def video_info(path: str) -> VideoInfo:
    """What the container says of its first video stream."""
    with opened(path) as (container, stream):
        duration = float(_duration(container, stream))
        codec = stream.codec_context
        return VideoInfo(codec.width, codec.height, float(stream.average_rate or 0), stream.frames, duration)


def video_frames(path: str, requests: Sequence[FrameRequest]) -> Mapping[FrameRequest, np.ndarray]:
    """The frames of every request, with one decode of those parts of the video that hold them."""
    with opened(path) as (container, stream):
        timeline = timeline_of(container, stream)
        picked = {request: timeline.wanted(request) for request in requests}
        found: dict[FrameRequest, list[np.ndarray]] = {request: [] for request in requests}
        for index, frame in decoded(container, stream, timeline, sorted(set().union(*picked.values()))):
            for request, indices in picked.items():
                if count := indices.count(index):
                    found[request] += [_pixels(frame, request)] * count
        return {request: np.array(frames, np.uint8) for request, frames in found.items()}


def video_digest(path: str) -> str:
    """The MD5 of the compressed pictures of all video streams; sound and headers have no part in it."""
    digest = hashlib.md5(usedforsecurity=False)
    with opened(path) as (container, _):
        for packet in container.demux(container.streams.video):
            digest.update(bytes(packet))
    return digest.hexdigest()


def audio_info(path: str) -> AudioInfo:
    """The length of the first sound stream, found by decoding it."""
    with av.open(path, options=_LOCAL_ONLY) as container:
        if not container.streams.audio:
            raise ValueError("it has no sound")
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        return AudioInfo(samples, stream.codec_context.sample_rate)


@contextmanager
def opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream, to be decoded on this thread."""
    with av.open(path, options=_LOCAL_ONLY) as container:
        if not container.streams.video:
            raise ValueError("it has no video")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ValueError("its codec is not known")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def go_to(container: Any, stream: Any, pts: int) -> None:
    """Goes to the key frame before a time, or to the beginning where the container has no index."""
    if _is_indexed(container):
        container.seek(pts, stream=stream)
    else:
        container.seek(0)


def _is_indexed(container: Any) -> bool:
    return not _INDEXED.isdisjoint(container.format.name.split(","))


def _duration(container: Any, stream: Any) -> Fraction:
    """Seconds that the stream says, or else the container."""
    if stream.duration is not None:
        return stream.duration * stream.time_base
    return Fraction(container.duration or 0, av.time_base)


def timeline_of(container: Any, stream: Any) -> Timeline:
    """The frames of a stream, from its packets; from decoding it where packets have no times."""
    packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
    times = [(packet.pts, packet.is_keyframe, packet.is_corrupt) for packet in packets]
    if any(corrupt for *_, corrupt in times):
        raise ValueError("a part of it is missing")
    counted = any(pts is None for pts, *_ in times)
    if counted:
        container.seek(0)
        times = [(frame.pts, frame.key_frame, False) for frame in container.decode(stream)]
    if not times:
        raise ValueError("it has no frames")
    if any(pts is None for pts, *_ in times):
        raise ValueError("a frame has no time")
    times.sort()
    return Timeline(
        np.array([pts for pts, *_ in times], np.int64),
        np.array([key for _, key, _ in times], bool),
        time_base=stream.time_base,
        duration=_duration(container, stream),
        rate=stream.guessed_rate or Fraction(0),
        said=stream.frames,
        counted=counted,
    )


def decoded(container: Any, stream: Any, timeline: Timeline, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Yields the wanted frames (ascending indices), skipping to key frames where the container can."""
    seekable = not timeline.counted and _is_indexed(container)
    frames: Iterator[tuple[int, Any]] = iter(())
    position, frame = -1, None
    for index in wanted:
        key = timeline.key_before(index) if seekable else 0
        if position < key:
            frames = _numbered(container, stream, timeline, key)
        while position < index:
            position, frame = next(frames, (len(timeline), None))
        if frame is None:
            raise ValueError(f"frame {index} of {len(timeline)} is missing")
        yield index, frame


def _numbered(container: Any, stream: Any, timeline: Timeline, start: int) -> Iterator[tuple[int, Any]]:
    """Decodes from a key frame, or from the beginning, and tells the index of every frame."""
    if start:
        go_to(container, stream, int(timeline.pts[start]))
    else:
        container.seek(0)
    for count, frame in enumerate(container.decode(stream)):
        yield count if timeline.counted else int(np.searchsorted(timeline.pts, frame.pts)), frame


def _pixels(frame: Any, request: FrameRequest) -> np.ndarray:
    """A frame as a request wants it: uint8, (H, W, 3) in RGB or (H, W)."""
    if not request.gray:
        return frame.to_ndarray(format="rgb24")
    return luminance(np.rot90(frame.to_ndarray(format="bgr24"), frame.rotation // 90), request)
