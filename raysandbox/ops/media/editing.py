"""Writing pieces and smaller versions of a video; runs in the decoder's process.

Sound is copied. What stands at the target already is taken as it is, so its name must say what it holds.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from raysandbox.core.files import atomic_path
from raysandbox.ops.media.decoding import go_to, opened

__all__ = ["resize", "split"]


class _NothingThere(ValueError):
    """No frame lies within the bounds."""


def split(path: str, pieces: Sequence[tuple[float, float | None, str]]) -> Generator[None, None, list[str]]:
    """Writes pieces of a video, each from one second to another (None: the end) into a file.

    Returns:
        the files of those pieces that hold a frame.
    """
    written = []
    for start, end, target in pieces:
        try:
            yield from _write(path, target, start=start, end=end)
        except _NothingThere:
            continue
        written.append(target)
    return written


def resize(path: str, width: int, height: int, target: str) -> Generator[None, None, list[str]]:
    """Writes a video at another size; returns its file alone."""
    yield from _write(path, target, size=(width, height))
    return [target]


def _write(
    path: str, target: str, *, start: float = 0.0, end: float | None = None, size: tuple[int, int] | None = None
) -> Iterator[None]:
    """Encodes the frames within the bounds, both included, and copies the sound; yields after every frame."""
    if os.path.exists(target):
        return
    with opened(path) as (container, source), atomic_path(Path(target)) as temporary:
        origin = source.start_time or 0
        first = origin + int(start / source.time_base)
        last = None if end is None else origin + end / source.time_base
        with av.open(str(temporary), "w") as output:
            video = _stream_like(output, source, size)
            sound = next(iter(container.streams.audio), None)
            copy = sound and output.add_stream_from_template(sound)
            go_to(container, source, first)
            written = 0
            for item in _items(container, [source, sound] if sound else [source], first, last):
                if isinstance(item, av.Packet):
                    _copy(item, copy, output, first * source.time_base, last and last * source.time_base)
                    continue
                item.pts -= first
                item.pict_type = 0  # the encoder chooses
                output.mux(
                    video.encode(item.reformat(video.width, video.height, video.pix_fmt, interpolation="BICUBIC"))
                )
                written += 1
                yield
            output.mux(video.encode())
        if not written:
            raise _NothingThere(f"no frame between {start:g} and {end or 'the end'}")


def _items(container: Any, streams: Sequence[Any], first: int, last: float | None) -> Iterator[Any]:
    """The frames of the first stream within the bounds, and the packets of the other until the last of them."""
    for packet in container.demux(streams):
        if packet.stream.type == "audio":
            yield packet
            continue
        for frame in packet.decode():
            if frame.pts is None:
                raise ValueError("a frame has no time")
            if last is not None and frame.pts > last:
                return
            if frame.pts >= first:
                yield frame


def _stream_like(output: Any, source: Any, size: tuple[int, int] | None) -> Any:
    codec = source.codec_context
    if codec.pix_fmt is None:
        raise ValueError("its pixel format is not known")
    try:
        video = output.add_stream(codec.codec.canonical_name, rate=source.guessed_rate)
    except ValueError:
        raise ValueError(f"there is no encoder for {codec.codec.canonical_name}") from None
    video.width, video.height = size or (codec.width, codec.height)
    video.pix_fmt = codec.pix_fmt
    video.codec_context.time_base = source.time_base
    video.codec_context.thread_count = 1
    return video


def _copy(packet: av.Packet, copy: Any, output: Any, start: Fraction, end: float | None) -> None:
    """Writes a packet of sound that starts within the bounds, in seconds."""
    if packet.pts is None or packet.dts is None:
        return
    seconds = packet.pts * packet.time_base
    if seconds >= start and (end is None or seconds <= end):
        shift = int(start / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = copy
        output.mux(packet)
