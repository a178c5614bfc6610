"""Reductions agree with torch-fidelity's functions on the same features, and with what is known of them."""

import importlib
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from raysandbox.evaluators._inception.reductions import (
    Moments,
    coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
)

CLOSE = {"rel": 1e-6, "abs": 1e-9}


@pytest.fixture(scope="module")
def peer():
    """torch-fidelity's modules of metrics; the rest of the package would need torchvision."""
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        pytest.skip("needs torch-fidelity")
    package, utils = ModuleType("torch_fidelity"), ModuleType("torch_fidelity.utils")
    package.__path__ = list(spec.submodule_search_locations)
    utils.__getattr__ = lambda name: None
    sys.modules |= {"torch_fidelity": package, "torch_fidelity.utils": utils}
    names = ("fid", "kid", "isc", "prc")
    yield SimpleNamespace(**{name: importlib.import_module(f"torch_fidelity.metric_{name}") for name in names})
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]:
        del sys.modules[name]


def features(rows, columns, seed, shift=0.0):
    chance = np.random.default_rng(seed)
    mixed = chance.normal(size=(rows, columns)) @ np.random.default_rng(9).normal(size=(columns, columns))
    return (np.maximum(mixed, 0) + shift).astype(np.float32)


def moments(rows, size=100):
    """Of rows that come in parts."""
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    return Moments((part, np.ones(len(part), np.int64)) for part in parts)


def double(rows):
    import torch

    return torch.from_numpy(rows.astype(np.float64))


@pytest.mark.parametrize(("rows", "columns", "shift"), [(700, 48, 0.1), (700, 48, 30.0), (40, 3, 0.0)])
def test_frechet_distance_is_torch_fidelitys(peer, rows, columns, shift):
    fake, real = features(rows, columns, 1, shift), features(rows + 50, columns, 2)
    ours = [moments(fake), moments(real)]
    statistics = [{"mu": found.mean, "sigma": found.covariance} for found in ours]
    expected = peer.fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(*ours) == pytest.approx(expected, **CLOSE)
    for found, rows_ in zip(ours, (fake, real), strict=True):
        theirs = peer.fid.fid_features_to_statistics(double(rows_))
        assert found.mean == pytest.approx(theirs["mu"], **CLOSE)
        biased = theirs["sigma"] * (len(rows_) - 1) / len(rows_)  # they divide by n - 1
        assert np.abs(found.covariance - biased).max() < 1e-9 * np.abs(biased).max() * (1 + shift**2)


def test_kernel_distance_is_torch_fidelitys(peer):
    fake, real = features(150, 24, 1, 0.2), features(120, 24, 2)
    expected = peer.kid.kid_features_to_metric(
        double(fake), double(real), kid_subsets=20, kid_subset_size=120, rng_seed=5, verbose=False
    )
    found = kernel_distance(fake, real, 5, subsets=20)
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], **CLOSE)


def test_inception_score_is_torch_fidelitys(peer):
    logits = features(403, 12, 1)
    expected = peer.isc.isc_features_to_metric(double(logits), splits=10, shuffle=False)
    mean, deviation = inception_score(double(logits).softmax(1).numpy())
    assert mean == pytest.approx(expected["inception_score_mean"], **CLOSE)
    assert deviation == pytest.approx(expected["inception_score_std"], **CLOSE)


@pytest.mark.parametrize("columns", [2, 16])
def test_coverage_is_torch_fidelitys(peer, columns):
    fake, real = features(220, columns, 1, 0.3), features(180, columns, 2)
    expected = peer.prc.prc_features_to_metric(double(fake), double(real), verbose=False)
    found = coverage(fake, real)
    assert found == pytest.approx((expected["precision"], expected["recall"]), **CLOSE)
    assert 0 < min(found) < 1


def test_blocks_of_distances_do_not_change_the_coverage(monkeypatch):
    fake, real = features(60, 3, 1), features(50, 3, 2)
    whole = coverage(fake, real)
    monkeypatch.setattr("raysandbox.evaluators._inception.reductions._BLOCK", 130)
    assert coverage(fake, real) == whole


def test_equal_sets_are_at_distance_0():
    for rows in (features(300, 20, 1), features(10, 20, 1)):  # the second with a singular covariance
        assert frechet_distance(moments(rows), moments(rows)) < 1e-9
        assert coverage(rows, rows) == (1.0, 1.0)
    rows = np.repeat(features(6, 500, 1, 100.0), 5, axis=0)  # every point has its like
    assert coverage(rows, rows) == (1.0, 1.0)


def test_frechet_distance_of_known_gaussians():
    chance = np.random.default_rng(0)
    rows = np.linalg.qr(chance.normal(size=(500, 4)))[0]
    rows = rows - rows.mean(axis=0)
    rows = np.linalg.qr(rows)[0] * np.sqrt(500)  # mean 0, covariance 1
    moved = rows * np.array([1.0, 2.0, 3.0, 4.0]) + 2.0
    assert frechet_distance(moments(moved), moments(rows)) == pytest.approx(4 * 4 + 0 + 1 + 4 + 9, rel=1e-9)


def test_moments_count_rows_as_often_as_they_were_drawn():
    rows, counts = features(20, 5, 1), np.arange(20)
    repeated = moments(np.repeat(rows, counts, axis=0))
    counted = Moments([(rows[:7], counts[:7]), (rows[7:], counts[7:])])
    assert counted.n == repeated.n == 190
    assert counted.covariance == pytest.approx(repeated.covariance, rel=1e-9)


def test_inception_score_of_certain_and_even_classes():
    certain = np.tile(np.eye(4), (10, 1))  # probabilities of 0 and 1
    assert inception_score(certain) == pytest.approx((4.0, 0.0))
    assert inception_score(np.full((40, 4), 0.25)) == pytest.approx((1.0, 0.0))
