"""The files that rows name: facts about them, images and frames, each found out once per batch.

Every function raises `RowFaults` with all the rows of the batch that have a bad file.
"""

from raysandbox.ops.media.decoder import Job
from raysandbox.ops.media.quantities import ByteSize, Ratio
from raysandbox.ops.media.types import AudioInfo, ImageInfo, MediaKind, VideoInfo
from raysandbox.ops.media.views import (
    audio_infos,
    edited_videos,
    file_lists,
    file_sizes,
    image_infos,
    images,
    map_videos,
    stored_frames,
    video_digests,
    video_frames,
    video_infos,
)

__all__ = [
    "AudioInfo",
    "ByteSize",
    "ImageInfo",
    "Job",
    "MediaKind",
    "Ratio",
    "VideoInfo",
    "audio_infos",
    "edited_videos",
    "file_lists",
    "file_sizes",
    "image_infos",
    "images",
    "map_videos",
    "stored_frames",
    "video_digests",
    "video_frames",
    "video_infos",
]
