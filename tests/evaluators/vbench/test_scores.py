"""Scores of dimensions and the leaderboard's sums."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.core.errors import JobFailed
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS, PUBLISHED
from raysandbox.evaluators._vbench.scores import normalised, score_of, totals_of

LEADERBOARD = {  # Total, Quality, Semantic in per cent
    "T2V-Turbo": (81.01, 82.57, 74.76),
    "Data-Juicer (T2V, 147k)": (82.10, 83.14, 77.93),
    "Data-Juicer (228k)": (82.53, 83.38, 79.13),
}


def row_of(model):
    return {name: value / 100 for name, value in zip(DIMENSIONS, PUBLISHED[model], strict=True)}


@pytest.mark.parametrize("model", LEADERBOARD)
def test_the_published_rows(model):
    sums = totals_of(row_of(model))
    found = [100 * value for value in (sums.total, sums.quality, sums.semantic)]
    assert found == pytest.approx(LEADERBOARD[model], abs=0.01)
    assert sums.missing == ()


def test_a_missing_dimension_is_missing_and_not_zero():
    row = row_of("T2V-Turbo")
    del row["scene"]
    sums = totals_of(row)
    assert (sums.semantic, sums.total, sums.missing) == (None, None, ("scene",))
    assert 100 * sums.quality == pytest.approx(82.57, abs=0.01)
    assert totals_of({}).missing == tuple(DIMENSIONS)


def test_the_scale_of_the_leaderboard():
    assert normalised("motion_smoothness", 0.706) == 0
    assert normalised("motion_smoothness", 0.9975) == 1
    assert len(DIMENSIONS) == 16
    assert sum(dimension.weight for dimension in DIMENSIONS.values() if dimension.group == "quality") == 6.5


def result(path, value, frames):
    """What VBench says about a video, whatever the dimension."""
    return {
        "video_path": path,
        "video_results": value,
        "video_sim": value * frames,
        "cnt_per_video": frames,
        "success_frame_count": min(frames, 3),
        "frame_count": frames,
        "frame_results": [value / (n + 1) for n in range(frames)],
    }


def test_each_kind_of_mean():
    results = [result("a", 0.5, 4), result("b", 0.8, 1)]
    assert score_of("temporal_flickering", results) == pytest.approx(0.65)  # of videos
    assert score_of("imaging_quality", results) == pytest.approx(0.0065)  # VBench's are per cent
    assert score_of("subject_consistency", results) == pytest.approx((0.5 * 4 + 0.8) / 5)  # of frames
    assert score_of("object_class", results) == pytest.approx(4 / 5)  # successes
    frames = [0.5, 0.25, 0.5 / 3, 0.125, 0.8]
    assert score_of("appearance_style", results) == pytest.approx(sum(frames) / 5)
    assert score_of("dynamic_degree", [{"video_results": True}, {"video_results": False}]) == 0.5


def test_no_video_and_no_number_are_refused():
    with pytest.raises(JobFailed, match="color has no score: the suite's objects were found in none"):
        score_of("color", [])
    with pytest.raises(JobFailed, match=r"temporal_flickering: the score of a\.mp4 is nan"):
        score_of("temporal_flickering", [result("a.mp4", math.nan, 2)])


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40)), min_size=1, max_size=30),
    st.integers(0, 2**32),
    st.sampled_from(sorted(DIMENSIONS)),
)
def test_a_score_does_not_depend_on_the_order_of_the_results(values, seed, dimension):
    results = [result(str(n), value, frames) for n, (value, frames) in enumerate(values)]
    shuffled = random.Random(seed).sample(results, len(results))
    assert score_of(dimension, results) == score_of(dimension, shuffled)  # to the last bit
