"""What is known of a media file without its content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AudioInfo", "ImageInfo", "MediaKind", "VideoInfo"]

MediaKind = Literal["image", "video", "audio"]


@dataclass(frozen=True)
class VideoInfo:
    """What a video's container says of its first video stream.

    Attributes:
        width: in pixels.
        height: in pixels.
        fps: average frames per second.
        frames: number of frames, 0 where the container does not say.
        duration: seconds.
    """

    width: int
    height: int
    fps: float
    frames: int
    duration: float


@dataclass(frozen=True)
class ImageInfo:
    """Size of an image in pixels, turned as its EXIF orientation says."""

    width: int
    height: int


@dataclass(frozen=True)
class AudioInfo:
    """Length of a sound.

    Attributes:
        samples: number of samples per channel.
        sample_rate: samples per second.
    """

    samples: int
    sample_rate: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / self.sample_rate
