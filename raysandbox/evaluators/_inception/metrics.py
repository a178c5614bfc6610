"""The metrics by name: what each one samples, what it asks of its detector, how it is reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric", "MetricName"]

MetricName = Literal[
    "fvd2048_16f",
    "fvd2048_128f",
    "fvd2048_128f_subsample8f",
    "kvd2048_16f",
    "isv2048_ucf",
    "prv2048_3n_16f",
    "fid50k",
    "kid50k",
    "is50k",
    "pr50k_3n",
]

# What the published TorchScript detectors are asked, as far as a detector's `forward` has the argument.
_I3D = ("rescale", "resize", "return_features")
_FEATURES = ("return_features",)


@dataclass(frozen=True)
class Metric:
    """How a metric is measured.

    Attributes:
        weights: part of the manifest of model files that names the published detector.
        reduction: Fréchet distance, kernel distance (MMD²), inception score, or precision and recall.
        samples: how many clips are drawn; of single frames the most that are used.
        arguments: flags of the detector's `forward` that are set.
        frames: frames of a clip; 1 means that single frames and images are looked at.
        stride: a clip takes every how many-th frame.
        scale: what the result is multiplied with.
    """

    weights: str
    reduction: Literal["frechet", "kernel", "score", "coverage"]
    samples: int
    arguments: tuple[str, ...] = ()
    frames: int = 1
    stride: int = 1
    scale: float = 1.0

    @property
    def of_frames(self) -> bool:
        """Whether it looks at single frames, not at clips."""
        return self.frames == 1

    @property
    def needs_real(self) -> bool:
        """Whether it compares with real data."""
        return self.reduction != "score"

    @property
    def span(self) -> int:
        """Consecutive frames of a video that a clip extends over."""
        return (self.frames - 1) * self.stride + 1


METRICS: dict[MetricName, Metric] = {
    "fvd2048_16f": Metric("fvd", "frechet", 2048, _I3D, frames=16),
    "fvd2048_128f": Metric("fvd", "frechet", 2048, _I3D, frames=128),
    "fvd2048_128f_subsample8f": Metric("fvd", "frechet", 2048, _I3D, frames=16, stride=8),
    "kvd2048_16f": Metric("kvd", "kernel", 2048, _I3D, frames=16),
    "isv2048_ucf": Metric("isv", "score", 2048, frames=16),
    "prv2048_3n_16f": Metric("prv", "coverage", 2048, _I3D, frames=16),
    "fid50k": Metric("fid", "frechet", 50_000, _FEATURES),
    "kid50k": Metric("kid", "kernel", 50_000, _FEATURES, scale=1000.0),
    "is50k": Metric("is", "score", 50_000, ("no_output_bias",)),
    "pr50k_3n": Metric("pr", "coverage", 50_000, _FEATURES),
}
