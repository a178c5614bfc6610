"""Which clips and frames a metric looks at: decided before any work, from the seed and the files' lengths alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Sample", "sample_clips", "sample_frames"]


@dataclass(frozen=True, eq=False)
class Sample:
    """What is drawn from a set of files: distinct windows, and which of them each draw is.

    Attributes:
        files: int64 of shape (windows,), number of each window's file; ascending.
        starts: int64 of shape (windows,), its first frame; ascending within a file.
        draws: int64 of shape (draws,), index of the window of every draw, in the order drawn.
    """

    files: np.ndarray
    starts: np.ndarray
    draws: np.ndarray

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def counts(self) -> np.ndarray:
        """int64 of shape (windows,), how many times each window was drawn."""
        return np.bincount(self.draws, minlength=len(self.files))


def sample_clips(lengths: np.ndarray, span: int, samples: int, seed: int) -> Sample:
    """Draws clips: epochs over the videos in a new order each, a start drawn uniformly from each video.

    Args:
        lengths: int64 of shape (videos,), frames of each; shorter videos than a clip are left out.
        span: consecutive frames that a clip extends over.
        samples: number of clips.
        seed: of the draws.
    """
    chance = np.random.default_rng(seed)
    usable = np.flatnonzero(lengths >= span)
    epochs = -(-samples // len(usable)) if len(usable) else 0
    videos = np.concatenate([np.zeros(0, np.int64), *(chance.permutation(usable) for _ in range(epochs))])[:samples]
    return _distinct(videos, chance.integers(0, lengths[videos] - span + 1))


def sample_frames(lengths: np.ndarray, most: int, seed: int) -> Sample:
    """Draws frames of all files without replacement, in random order.

    Args:
        lengths: int64 of shape (files,), frames of each; an image has one.
        most: largest number of draws; where there are fewer frames, all are taken.
        seed: of the draws.
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    drawn = np.random.default_rng(seed).choice(total, min(total, most), replace=False)
    files = np.searchsorted(ends, drawn, side="right")
    return _distinct(files, drawn - (ends - lengths)[files])


def _distinct(files: np.ndarray, starts: np.ndarray) -> Sample:
    pairs = np.stack([files, starts], axis=1)
    windows, draws = np.unique(pairs, axis=0, return_inverse=True)
    return Sample(windows[:, 0], windows[:, 1], draws.reshape(-1))
