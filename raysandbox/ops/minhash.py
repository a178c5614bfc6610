"""MinHash with locality-sensitive hashing: Data-Juicer's hash functions and its choice of bands."""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["best_bands", "hash_functions"]

_PRIME = np.uint64((1 << 61) - 1)
_SEED = 42  # Data-Juicer's


@cache
def hash_functions(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors and summands (uint64) of Data-Juicer's hash functions; the first ones do not depend on `count`."""
    chance = np.random.RandomState(_SEED)
    pairs = [
        (chance.randint(1, _PRIME, dtype=np.uint64), chance.randint(0, _PRIME, dtype=np.uint64)) for _ in range(count)
    ]
    factors, summands = np.array(pairs, np.uint64).T.copy()
    return factors, summands


@cache
def best_bands(threshold: float, values: int) -> tuple[int, int]:
    """Number of bands and of values per band that err least at a threshold.

    Texts of similarity s share one of b bands of r values with probability p(s) = 1 - (1 - s**r)**b.
    What is least is the area under p below the threshold plus the area above p beyond it, both of
    equal weight (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4; `datasketch`, from
    which Data-Juicer has it, calls them false positives and false negatives).

    Args:
        threshold: Jaccard similarity from which on texts are duplicates.
        values: length of a signature.
    """
    # p is a polynomial of a degree of at most `values`: so many nodes integrate it exactly.
    nodes, weights = np.polynomial.legendre.leggauss(values // 2 + 1)
    below, above = threshold * (nodes + 1) / 2, threshold + (1 - threshold) * (nodes + 1) / 2
    least, best = np.inf, (0, 0)
    for bands in range(1, values + 1):
        rows = np.arange(1, values // bands + 1)[:, None]
        false_positives = (1 - (1 - below**rows) ** bands) @ weights * threshold / 2
        false_negatives = (1 - above**rows) ** bands @ weights * (1 - threshold) / 2
        errors = (false_positives + false_negatives) / 2
        row = int(errors.argmin())
        if errors[row] < least:
            least, best = errors[row], (bands, row + 1)
    return best
