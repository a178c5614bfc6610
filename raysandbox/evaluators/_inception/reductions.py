"""Features to numbers, in NumPy's float64.

The functions do what those of torch-fidelity 0.4 do on given features, which importing it for would
need torchvision; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

__all__ = ["Moments", "coverage", "frechet_distance", "inception_score", "kernel_distance"]

_BLOCK = 1 << 24  # distances that are in memory at once: 128 MiB
_EQUAL = 1e-12  # squared distance of equal points, relative to their squared norms


class Moments:
    """n, Σx and Σxxᵀ of features: all that a Fréchet distance needs; added up in the order given."""

    def __init__(self, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Adds up parts: features of shape (rows, d) and how many times each row counts."""
        self.n, self.sum, self.squares = 0.0, np.zeros(0), np.zeros((0, 0))
        for features, counts in parts:
            rows = features.astype(np.float64)
            weighted = rows * counts[:, None]
            if not self.n:
                self.sum, self.squares = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
            self.n += float(counts.sum())
            self.sum += weighted.sum(axis=0)
            self.squares += weighted.T @ rows

    @property
    def mean(self) -> np.ndarray:
        """Shape (d,)."""
        return self.sum / self.n

    @property
    def covariance(self) -> np.ndarray:
        """Shape (d, d), divided by n: biased."""
        mean = self.mean
        return self.squares / self.n - np.outer(mean, mean)


def frechet_distance(fake: Moments, real: Moments) -> float:
    """‖Δμ‖² + tr(Σr + Σg − 2√(ΣgΣr)) (Heusel et al. 2017, equation 6).

    With Σ = FFᵀ the trace of the root is the sum of the singular values of FgᵀFr: real and not
    negative by construction, where a matrix root of ΣgΣr may turn complex.
    """
    difference = fake.mean - real.mean
    first, second = fake.covariance, real.covariance
    shared = np.linalg.svd(_factor(first).T @ _factor(second), compute_uv=False).sum()
    return float(max(0.0, difference @ difference + np.trace(first) + np.trace(second) - 2.0 * shared))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F with FFᵀ = Σ, without the directions in which Σ is 0 up to rounding."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def kernel_distance(fake: np.ndarray, real: np.ndarray, seed: int, *, subsets: int = 100, most: int = 1000) -> float:
    """Mean unbiased MMD² with the kernel (x·y/d + 1)³ over random subsets (Bińkowski et al. 2018).

    Args:
        fake: features of shape (n, d).
        real: features of shape (m, d).
        seed: of the subsets, drawn from either set in turn, without replacement.
        subsets: how many pairs of subsets.
        most: size of a subset, or less where a set is smaller.
    """
    size = min(len(fake), len(real), most)
    chance = np.random.RandomState(seed)
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    total = 0.0
    for _ in range(subsets):
        x = fake[chance.choice(len(fake), size, replace=False)]
        y = real[chance.choice(len(real), size, replace=False)]
        within = sum(kernel.sum() - np.trace(kernel) for kernel in (_kernel(x, x), _kernel(y, y)))
        total += within / (size * (size - 1)) - 2.0 * _kernel(x, y).mean()
    return float(total / subsets)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    root = x @ y.T / x.shape[1] + 1.0
    return root * root * root


def inception_score(probabilities: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation over splits of exp(mean KL(p(y|x) ‖ p(y))) (Salimans et al. 2016).

    Args:
        probabilities: shape (n, classes), rows that sum to 1, in random order.
        splits: consecutive parts of the rows; n is at least that.
    """
    p = probabilities.astype(np.float64)
    p = p / p.sum(axis=1, keepdims=True)
    edges = [len(p) * index // splits for index in range(splits + 1)]
    scores = [_score(p[first:last]) for first, last in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(p: np.ndarray) -> float:
    shares = np.broadcast_to(p.mean(axis=0), p.shape)
    terms = np.zeros_like(p)
    seen = p > 0  # 0 · log 0 is 0
    terms[seen] = p[seen] * np.log(p[seen] / shares[seen])
    return float(np.exp(terms.sum(axis=1).mean()))


def coverage(fake: np.ndarray, real: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019).

    A point lies in a set's manifold when it is no farther from some point of it than that point is
    from its third neighbour, the fourth-nearest point of the set with the point itself.

    Args:
        fake: features of shape (n, d).
        real: features of shape (m, d).
        neighbours: which neighbour's distance is a point's radius.

    Returns:
        the shares of fake points in the real manifold and of real points in the fake one.
    """
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    return _share_inside(fake, real, neighbours), _share_inside(real, fake, neighbours)


def _share_inside(points: np.ndarray, manifold: np.ndarray, neighbours: int) -> float:
    own = _distances(manifold, manifold)
    radii = np.concatenate([np.partition(block, neighbours, axis=1)[:, neighbours] for block in own])
    inside = [(block <= radii).any(axis=1) for block in _distances(points, manifold)]
    return float(np.concatenate(inside).mean())


def _distances(points: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances of blocks of points to all others, shape (rows, others).

    What is left by rounding between points that are equal, as float32 features go, is made 0: the
    radius of a point that occurs several times is 0 too.
    """
    squares = np.einsum("ij,ij->i", others, others)
    step = max(1, _BLOCK // len(others))
    for first in range(0, len(points), step):
        block = points[first : first + step]
        both = np.einsum("ij,ij->i", block, block)[:, None] + squares
        found = both - 2.0 * (block @ others.T)
        yield np.where(found <= _EQUAL * both, 0.0, found)
