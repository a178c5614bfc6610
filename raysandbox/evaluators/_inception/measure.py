"""From files to a metric's scores: samples, units, features, reduction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysandbox.core.errors import JobFailed
from raysandbox.evaluators._inception.cache import ArrayCache
from raysandbox.evaluators._inception.features import FeatureWork, Unit, units_of
from raysandbox.evaluators._inception.frames import Window
from raysandbox.evaluators._inception.media import MediaFile, listed
from raysandbox.evaluators._inception.metrics import Metric
from raysandbox.evaluators._inception.reductions import (
    Moments,
    coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
)
from raysandbox.evaluators._inception.sampling import Sample, sample_clips, sample_frames
from raysandbox.evaluators._inception.survey import Known

__all__ = ["MediaSet", "Sampled", "reduced"]

logger = logging.getLogger(__name__)

_SPLITS = 10
_NEIGHBOURS = 3


@dataclass(frozen=True)
class MediaSet:
    """The files of a set with what is known of them.

    Attributes:
        name: fake or real.
        files: in order; may repeat.
        known: of each one.
    """

    name: str
    files: Sequence[MediaFile]
    known: Mapping[MediaFile, Known]

    @property
    def lengths(self) -> np.ndarray:
        """int64 of shape (files,), frames of each."""
        return np.array([self.known[file].frames for file in self.files], np.int64)

    def short(self, metric: Metric) -> list[str]:
        """The files that have fewer frames than a clip needs."""
        return [file.path for file in self.files if self.known[file].frames < metric.span]

    def check(self, metric: Metric, name: str) -> None:
        """Warns of files that are too short for the metric.

        Raises:
            JobFailed: all are.
        """
        short = self.short(metric)
        if not short:
            return
        what = (
            f"{len(short)} of {len(self.files)} {self.name} videos have fewer than the {metric.span} frames of a clip"
        )
        if len(short) == len(self.files):
            raise JobFailed(f"{name}: {what}: there is nothing to measure")
        logger.warning("%s: %s and are left out: %s", name, what, listed(short))

    def sampled(self, metric: Metric, seed: int, work: FeatureWork, detector_digest: str) -> Sampled:
        """What the metric looks at with a seed."""
        if metric.of_frames:
            sample = sample_frames(self.lengths, metric.samples, seed)
        else:
            sample = sample_clips(self.lengths, metric.span, metric.samples, seed)
        files = [self.files[index] for index in sample.files.tolist()]
        windows = [
            Window(file.path, None if file.is_image else start)
            for file, start in zip(files, sample.starts.tolist(), strict=True)
        ]
        digests = [self.known[file].digest for file in files]
        return Sampled(sample, units_of(work, detector_digest, windows, digests))


@dataclass(frozen=True)
class Sampled:
    """A sample and the units that its features come from.

    Attributes:
        sample: what was drawn.
        units: hold its windows, in order.
    """

    sample: Sample
    units: Sequence[Unit]

    def parts(self, cache: ArrayCache) -> Iterator[np.ndarray]:
        """The features of the windows, a unit at a time."""
        return (cache.get(unit.key)["features"] for unit in self.units)

    def features(self, cache: ArrayCache) -> np.ndarray:
        """The features of the draws, shape (draws, d), in the order drawn."""
        return np.concatenate(list(self.parts(cache)))[self.sample.draws]

    def moments(self, cache: ArrayCache) -> Moments:
        """The moments of the draws' features; one unit's features at a time are in memory."""
        counts = np.split(self.sample.counts, np.cumsum([len(unit.windows) for unit in self.units])[:-1])
        return Moments(zip(self.parts(cache), counts, strict=True))


def reduced(
    name: str, metric: Metric, fake: Sampled, real: Sampled | None, seed: int, cache: ArrayCache
) -> dict[str, float]:
    """A metric's scores, by name.

    Args:
        name: of the metric.
        metric: how it is measured.
        fake: the generated data.
        real: what they are compared with; None for scores that compare with nothing.
        seed: of a kernel distance's subsets.
        cache: holds the features.

    Raises:
        JobFailed: there are too few samples, or a score is not a number.
    """
    least = {"frechet": 2, "kernel": 2, "score": _SPLITS, "coverage": _NEIGHBOURS + 1}[metric.reduction]
    for which, sampled in (("fake", fake), ("real", real)):
        if sampled is not None and len(sampled.sample) < least:
            raise JobFailed(f"{name} needs at least {least} frames of {which} data, there are {len(sampled.sample)}")
        if sampled is not None:
            _warn_of_repeats(name, metric, which, sampled.sample)
    scores = _scores(name, metric, fake, real, seed, cache)
    bad = [key for key, value in scores.items() if not np.isfinite(value)]
    if bad:
        raise JobFailed(f"{', '.join(bad)} is not a number: the detector's features are too large to reduce")
    return scores


def _warn_of_repeats(name: str, metric: Metric, which: str, sample: Sample) -> None:
    """Repeated samples have their like at distance 0, which these two reductions take for similarity."""
    distinct, drawn = len(sample.files), len(sample)
    if metric.reduction in ("kernel", "coverage") and distinct < drawn:
        what = f"only {distinct} of the {drawn} {which} samples are distinct"
        logger.warning("%s: %s, so the score says little: give more or longer videos", name, what)


def _warn_of_few(name: str, which: str, sample: Sample, features: int) -> None:
    if len(sample.files) <= features:
        what = f"{len(sample.files)} distinct {which} samples for {features} features"
        logger.warning("%s: %s: compare the score with those of as many samples only", name, what)


def _scores(
    name: str, metric: Metric, fake: Sampled, real: Sampled | None, seed: int, cache: ArrayCache
) -> dict[str, float]:
    if real is None:
        mean, deviation = inception_score(_probabilities(name, fake.features(cache)), _SPLITS)
        return {f"{name}_mean": mean, f"{name}_std": deviation}
    if metric.reduction == "frechet":
        moments = fake.moments(cache), real.moments(cache)
        for which, sampled in (("fake", fake), ("real", real)):
            _warn_of_few(name, which, sampled.sample, len(moments[0].mean))
        return {name: metric.scale * frechet_distance(*moments)}
    both = fake.features(cache), real.features(cache)
    if metric.reduction == "kernel":
        return {name: metric.scale * kernel_distance(*both, seed)}
    precision, recall = coverage(*both, _NEIGHBOURS)
    return {f"{name}_precision": precision, f"{name}_recall": recall}


def _probabilities(name: str, outputs: np.ndarray) -> np.ndarray:
    """The detector's class probabilities; what is no distribution is taken for logits, as torch-fidelity does."""
    p = outputs.astype(np.float64)
    if (p >= 0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-3):
        return p
    logger.warning("%s: the detector's outputs do not sum to 1: they are taken for logits", name)
    p = np.exp(p - p.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)
