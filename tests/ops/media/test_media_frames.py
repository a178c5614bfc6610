"""Which frames are picked, sizes and ratios, and verdicts over several files."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raysandbox.ops.base import OPERATORS
from raysandbox.ops.batch import FrameRequest
from raysandbox.ops.media import ByteSize, Ratio
from raysandbox.ops.media.resizing import resized_dimensions
from raysandbox.ops.media.timeline import Timeline


def timeline(frames, rate=24, every=12):
    keys = np.arange(frames) % every == 0
    pts = np.arange(frames) * 512
    return Timeline(pts, keys, Fraction(1, 512 * rate), Fraction(frames, rate), Fraction(rate), frames)


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (FrameRequest("all_keyframes"), [0, 12, 24, 36]),
        (FrameRequest("all_frames"), list(range(48))),
        (FrameRequest("uniform", count=1), [24]),
        (FrameRequest("uniform", count=3), [0, 24, 47]),
        (FrameRequest("uniform", count=2, segment=1.0), [0, 23]),
        (FrameRequest("uniform", count=2, segment=5.0), []),
        (FrameRequest("fps", fps=2), [0, 1, 12, 24, 36]),
        (FrameRequest("fps", fps=100), [0, 1, *range(1, 48)]),
        (FrameRequest("fps", fps=0.1), [0, 1, 47]),
    ],
)
def test_frames_of_a_request(request_, wanted):
    assert timeline(48).wanted(request_) == wanted


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(1, 60), st.integers(1, 30), st.integers(1, 90))
def test_uniform_frames_ascend_from_the_first_to_the_last(frames, rate, every, count):
    picked = timeline(frames, rate, every).wanted(FrameRequest("uniform", count=count))
    assert picked == sorted(picked)
    assert 1 <= len(picked) <= min(count, frames)
    if count > 1 and frames > 1:
        assert (picked[0], picked[-1]) == (0, frames - 1)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0", 0), ("12", 12), ("10KB", 10 << 10), ("1.5 MiB", 3 << 19), ("1tb", 1 << 40), (7, 7), (None, None)],
)
def test_sizes(text, bytes_):
    assert TypeAdapter(ByteSize).validate_python(text) == bytes_


@pytest.mark.parametrize(("kind", "text"), [(ByteSize, "1 k"), (ByteSize, "MB"), (Ratio, "wide"), (Ratio, "1/0")])
def test_sizes_and_ratios_that_are_none(kind, text):
    with pytest.raises(ValidationError, match="should be a"):
        TypeAdapter(kind).validate_python(text)


def test_ratios():
    assert [TypeAdapter(Ratio).validate_python(value) for value in ("16:9", "16/9", 1.5)] == [16 / 9, 16 / 9, 1.5]


@pytest.mark.parametrize(
    ("shape", "size", "max_size", "divisible", "result"),
    [
        ((100, 200), None, None, 1, (100, 200)),
        ((100, 200), (50,), None, 1, (50, 100)),
        ((200, 100), (50,), 80, 1, (80, 40)),
        ((100, 200), (30, 90), None, 8, (24, 88)),
    ],
)
def test_resized_dimensions(shape, size, max_size, divisible, result):
    assert resized_dimensions(shape, size, max_size, divisible) == result


SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4)


@settings(deadline=None)
@given(st.lists(SIZES, max_size=8), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans(), st.booleans())
def test_verdict_over_the_files_of_a_row(rows, low, high, reverse, closed, any_):
    operator = OPERATORS.get("video_resolution_filter")(
        min_width=low,
        max_width=None,
        min_height=None,
        max_height=high,
        reversed_range=reverse,
        min_closed_interval=closed,
        any_or_all="any" if any_ else "all",
    )
    kind = pa.list_(pa.int64())
    stats = {
        "video_width": pa.array([[width for width, _ in row] for row in rows], kind),
        "video_height": pa.array([[height for _, height in row] for row in rows], kind),
    }

    def inside(width, height):
        if reverse:
            return (width < low or (closed and width == low)) and height >= high
        return (width > low or (closed and width == low)) and height <= high

    expected = [not row or (any if any_ else all)(inside(*size) for size in row) for row in rows]
    assert operator.keep(stats).tolist() == expected
