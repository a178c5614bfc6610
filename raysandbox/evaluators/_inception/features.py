"""Features of windows by a TorchScript detector: extracted by the job's workers, kept by content."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np

from raysandbox.core.errors import UserError
from raysandbox.core.keys import code_version, digest
from raysandbox.core.memory import batches_that_fit
from raysandbox.core.runner import Workers
from raysandbox.evaluators._inception.cache import ArrayCache
from raysandbox.evaluators._inception.frames import Shape, Window, ahead, clips

__all__ = ["FeatureWork", "Unit", "extract", "units_of"]

_UNIT_FRAMES = 512
_BATCH_FRAMES = 128  # 112 MiB as float32 at 240 × 320


@dataclass(frozen=True)
class FeatureWork:
    """Applies a detector to windows; a `core.runner.UnitWork`.

    Attributes:
        detector: path of the TorchScript file.
        arguments: flags of its `forward` that are set, where it has them.
        shape: of the windows; those of one frame go to it as images.
    """

    detector: str
    arguments: tuple[str, ...]
    shape: Shape

    def load(self, device: str) -> tuple[Any, dict[str, bool], str]:
        """Loads the detector.

        Raises:
            UserError: the file is not one.
        """
        import torch

        # The same results in every worker and from its first batch on; TF32 would cost three digits.
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch would like another format
                module = torch.jit.load(self.detector, map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"detector_path: {self.detector} is not a TorchScript file: {reason}") from error
        accepted = {argument.name for argument in module.forward.schema.arguments}
        return module, {name: True for name in self.arguments if name in accepted}, device

    def run(self, unit: Sequence[Window], state: tuple[Any, dict[str, bool], str]) -> np.ndarray:
        """Returns the features of a unit's windows, shape (windows, d).

        Raises:
            UserError: a file cannot be decoded, or the detector gives something else than numbers.
        """
        size = max(1, _BATCH_FRAMES // self.shape.frames)
        batches = (np.stack(batch) for batch in _batched(clips(unit, self.shape), size))

        def found(some: Sequence[np.ndarray]) -> np.ndarray:
            return self._features(np.asarray(some), *state)

        refusal = "the memory does not hold the detector and one window of frames: use a GPU with more"
        features = np.concatenate(
            [
                part
                for batch in ahead(batches)
                for _, part in batches_that_fit(list(batch), len(batch), found, lambda _: refusal)
            ]
        )
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise UserError(f"detector_path: the features of {unit[bad[0]].path} by {self.detector} are not numbers")
        return features

    def _features(self, batch: np.ndarray, module: Any, arguments: dict[str, bool], device: str) -> np.ndarray:
        """Features of uint8 pixels of shape (n, frames, height, width, 3)."""
        import torch

        pixels = torch.from_numpy(batch).to(device).permute(0, 4, 1, 2, 3)
        pixels = pixels[:, :, 0] if self.shape.frames == 1 else pixels
        # The optimiser would compile after some calls, and change the last bits.
        plain = torch.jit.optimized_execution(False)  # pyright: ignore[reportPrivateImportUsage]
        with torch.inference_mode(), plain:
            found = module(pixels.to(torch.float32).contiguous(), **arguments)
        if not isinstance(found, torch.Tensor) or found.shape[:1] != pixels.shape[:1]:
            raise UserError(f"detector_path: {self.detector} does not return a tensor with a row per input")
        found = found.reshape(len(batch), -1).cpu()
        return found.to(torch.float64 if found.dtype == torch.float64 else torch.float32).numpy()


def _batched(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while batch := list(islice(items, size)):
        yield batch


@dataclass(frozen=True)
class Unit:
    """Windows that are worked on together.

    Attributes:
        key: names their features by content.
        windows: of one or several files.
    """

    key: str
    windows: tuple[Window, ...] = field(repr=False)


def units_of(work: FeatureWork, detector_digest: str, windows: Sequence[Window], digests: Sequence[str]) -> list[Unit]:
    """Cuts windows into units of about 512 frames, whatever the number of workers.

    Args:
        work: what is done to them.
        detector_digest: SHA-256 of the detector.
        windows: in an order that keeps those of a file together.
        digests: of the content of each one's file.
    """
    about = [
        code_version(FeatureWork, Window),
        [version(name) for name in ("torch", "av", "pillow")],
        detector_digest,
        work.arguments,
        [work.shape.frames, work.shape.stride, work.shape.height, work.shape.width],
    ]
    size = max(1, _UNIT_FRAMES // work.shape.frames)
    units: list[Unit] = []
    for first in range(0, len(windows), size):
        part = tuple(windows[first : first + size])
        contents = [
            [content, window.start] for content, window in zip(digests[first : first + size], part, strict=True)
        ]
        units.append(Unit(digest(["inception features", about, contents]), part))
    return units


def extract(work: FeatureWork, units: Sequence[Unit], workers: Workers, cache: ArrayCache) -> int:
    """Puts the features of all units into the cache, those that are not there yet.

    Returns:
        how many units were worked on.
    """
    distinct = {unit.key: unit for unit in units}
    missing = [unit for key, unit in distinct.items() if cache.find(key) is None]
    windows = [unit.windows for unit in missing]
    for index, features in workers.map(work, windows, description="features", elastic=True):
        cache.put(missing[index].key, {"features": features})
    return len(missing)
