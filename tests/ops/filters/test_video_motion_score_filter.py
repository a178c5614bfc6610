"""What OpenCV refuses is a bad row."""

import io

import pyarrow as pa
import pytest
from PIL import Image

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import Batch


def png(width):
    stream = io.BytesIO()
    Image.new("L", (width, 32)).save(stream, "png")
    return stream.getvalue()


def score(widths, **parameters):
    operator = OPERATORS.get("video_motion_score_filter")(frame_field="frames", **parameters)
    operator.load()
    batch = Batch(pa.table({"frames": [[[png(width) for width in widths]]]}))
    return operator.compute(batch, None)["video_motion_score"].to_pylist()


def test_still_frames():
    assert score([32, 32, 32]) == [[0.0]]


def test_frames_that_differ_in_size():
    with pytest.raises(ValueError, match=r"no optical flow between frames of \(32, 32\) and \(32, 40\) pixels"):
        score([32, 40])


def test_parameters_that_opencv_refuses():
    with pytest.raises(ValueError, match="no optical flow"):
        score([32, 32], pyr_scale=2)
