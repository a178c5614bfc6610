from __future__ import annotations

from typing import Any

import pytest

from raysandbox.ops.mappers.video_resize_resolution_mapper import VideoResizeResolutionMapper
from raysandbox.ops.media.types import VideoInfo


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ({}, (320, 180)),
        ({"max_width": 160}, (160, 90)),
        ({"min_height": 360}, (640, 360)),
        ({"max_width": 160, "max_height": 160, "force_original_aspect_ratio": "decrease"}, (160, 90)),
    ],
)
def test_sizes(parameters: dict[str, Any], size: tuple[int, int]) -> None:
    assert VideoResizeResolutionMapper.model_validate(parameters).target_size(320, 180) == size


@pytest.mark.parametrize(("width", "height"), [(0, 0), (320, 0), (0, 180)])
def test_a_video_without_a_size_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="does not say how large it is"):
        VideoResizeResolutionMapper.model_validate({})._job("video.mp4", VideoInfo(width, height, 25.0, 10, 0.4))
