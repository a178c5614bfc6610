"""Video files: what they are called, how they are written and read."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from raysandbox.core.errors import MissingExtraError
from raysandbox.core.names import safe_stem

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ENCODING", "encode_mp4", "file_name", "read_frames", "require_av", "write_mp4"]

_CRF = "16"  # constant quality of x264; at 18 differences to the source begin to be visible
# "Macroblock-tree" rate control reads memory that it has not written: equal frames gave other bytes now and
# then (x264 164, with its assembler), and always where malloc fills memory (MALLOC_PERTURB_).
ENCODING = {"crf": _CRF, "preset": "medium", "x264-params": "mbtree=0", "flags": "+bitexact"}
_SEI = 6  # type of H.264 unit in which x264 writes its version and settings


def file_name(prompt: str, index: int) -> str:
    """The name of a prompt's video: `{prompt}-{index}.mp4`, as VBench expects it, made safe where it must be."""
    return f"{safe_stem(prompt)}-{index}.mp4"


def require_av(purpose: str) -> None:
    """Looks whether PyAV is there, without importing it.

    Raises:
        MissingExtraError: it is not.
    """
    if importlib.util.find_spec("av") is None:
        raise MissingExtraError("av", "video", purpose)


def write_mp4(path: Path, frames: np.ndarray, fps: int) -> None:
    """Writes a video that appears whole (see `encode_mp4`)."""
    # The temporary name does not hold the video's own, which may be as long as a name can be.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.mp4")
    try:
        encode_mp4(temporary, frames, fps)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def encode_mp4(path: Path, frames: np.ndarray, fps: int) -> None:
    """Encodes frames as H.264 (yuv420p, BT.601) in MP4; on disk when it returns.

    Equal frames give equal bytes with one version of FFmpeg and x264: there is one thread, and neither
    times nor versions are written.

    Args:
        path: the file; what stands there is overwritten.
        frames: uint8 array of shape (n, height, width, 3), n ≥ 1; the last row or column of an odd size
            is repeated, since the format halves the colours' resolution.
        fps: frames per second.

    Raises:
        ValueError: the array is something else.
    """
    import av
    from av.bitstream import BitStreamFilterContext
    from av.video.reformatter import Colorspace, Interpolation

    frames = _even(_checked(frames))
    how = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options=dict(ENCODING))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        without_notes = BitStreamFilterContext(f"filter_units=remove_types={_SEI}", stream)
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, interpolation=int(how))
            for packet in stream.encode(frame):
                container.mux(without_notes.filter(packet))
        for packet in stream.encode():
            container.mux(without_notes.filter(packet))
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_frames(path: Path, first: int = 0, count: int | None = None, stride: int = 1) -> np.ndarray:
    """Decodes frames of a video, one thread.

    Args:
        path: the file.
        first: number of the first frame to return.
        count: how many; None for all to the end.
        stride: distance between two that are returned.

    Returns:
        uint8 array of shape (n, height, width, 3), n ≤ `count` where the video ends earlier.

    Raises:
        ValueError: the file is no video, or is damaged.
    """
    import av
    import numpy as np
    from av.error import FFmpegError

    found: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video")
            container.streams.video[0].thread_type = "NONE"
            for number, frame in enumerate(container.decode(video=0)):
                if len(found) == count:
                    break
                if number >= first and (number - first) % stride == 0:
                    found.append(frame.to_ndarray(format="rgb24"))
    except FFmpegError as error:
        raise ValueError(f"{path} cannot be decoded: {error.strerror}") from error
    return np.stack(found) if found else np.zeros((0, 0, 0, 3), np.uint8)


def _checked(frames: np.ndarray) -> np.ndarray:
    if frames.ndim != 4 or frames.shape[3] != 3 or str(frames.dtype) != "uint8" or 0 in frames.shape:
        raise ValueError(f"frames are uint8 of shape (n, height, width, 3), not {frames.dtype} of {frames.shape}")
    return frames


def _even(frames: np.ndarray) -> np.ndarray:
    import numpy as np

    _, height, width, _ = frames.shape
    if height % 2 == 0 and width % 2 == 0:
        return frames
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
