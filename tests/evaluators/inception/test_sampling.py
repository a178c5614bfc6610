"""Samples depend on the seed and the lengths alone, and are what the metrics define."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysandbox.evaluators._inception.sampling import sample_clips, sample_frames

LENGTHS = st.lists(st.integers(0, 40), max_size=12).map(lambda values: np.array(values, np.int64))


@given(LENGTHS, st.integers(1, 20), st.integers(1, 100), st.integers(0, 9))
def test_clips_are_epochs_over_the_videos_that_are_long_enough(lengths, span, samples, seed):
    sample = sample_clips(lengths, span, samples, seed)
    usable = np.flatnonzero(lengths >= span)
    assert len(sample) == (samples if len(usable) else 0)
    drawn = sample.files[sample.draws]
    for first in range(0, len(drawn), max(1, len(usable))):
        epoch = drawn[first : first + len(usable)].tolist()
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(usable.tolist())
    assert ((sample.starts >= 0) & (sample.starts + span <= lengths[sample.files])).all()
    again = sample_clips(lengths, span, samples, seed)
    assert np.array_equal(again.files[again.draws], drawn)
    assert np.array_equal(again.starts[again.draws], sample.starts[sample.draws])


@given(LENGTHS, st.integers(1, 100), st.integers(0, 9))
def test_frames_are_drawn_once_from_all_files(lengths, most, seed):
    sample = sample_frames(lengths, most, seed)
    pairs = list(zip(sample.files.tolist(), sample.starts.tolist(), strict=True))
    assert len(sample) == len(set(pairs)) == min(most, lengths.sum())
    assert pairs == sorted(pairs)
    assert all(0 <= start < lengths[file] for file, start in pairs)
    assert sample.counts.tolist() == [1] * len(pairs)


def test_starts_are_uniform_and_epochs_reshuffled():
    sample = sample_clips(np.array([20, 20, 20]), 17, 6000, seed=1)
    counts = np.bincount(sample.starts[sample.draws])
    assert len(counts) == 4
    assert np.abs(counts / 6000 - 0.25).max() < 0.03
    orders = {tuple(order) for order in sample.files[sample.draws].reshape(-1, 3).tolist()}
    assert len(orders) == 6


def test_frames_past_the_first_fifty_thousand_are_drawn_too():
    sample = sample_frames(np.array([60_000, 40_000]), 50_000, seed=1)
    assert abs((sample.files == 1).mean() - 0.4) < 0.02
    assert sample.draws.tolist() != sorted(sample.draws.tolist())


def test_a_window_drawn_twice_is_looked_at_once():
    sample = sample_clips(np.array([18, 5]), 16, 2048, seed=3)
    assert sample.starts.tolist() == [0, 1, 2]
    assert sample.files.tolist() == [0, 0, 0]
    assert sample.counts.sum() == 2048
