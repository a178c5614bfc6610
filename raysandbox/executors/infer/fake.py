"""Generation without a model: queue, records and recovery are tested with it, without torch."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from raysandbox.core.errors import JobFailed
from raysandbox.core.keys import code_version
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.executors._video.generation.generating import GenerationWork, Made
from raysandbox.executors._video.generation.units import VideoUnit
from raysandbox.executors.infer._videos import VideoInference

__all__ = ["FakeInference"]

_FOREVER_S = 365 * 24 * 3600.0


@register("fake")
class FakeInference(VideoInference):
    """Generates moving stripes instead of videos of a model; for tests of clusters and experiments."""

    extras: ClassVar[tuple[str, ...]] = ("video",)
    example: ClassVar[Mapping[str, Any]] = {
        "prompts": "./data/prompts.txt",
        "videos_per_prompt": 2,
        "output_dir": "./outputs/demo/videos",
        "seconds": 0.5,
    }

    seconds: float = Field(0.5, ge=0, description="how long a video takes")
    jitter: float = Field(
        0.2, ge=0, le=1, description="share of the seconds by which videos take longer or shorter, by their seeds"
    )
    load_seconds: float = Field(0.0, ge=0, description="how long a worker takes to load")
    height: int = Field(32, ge=16, description="pixels")
    width: int = Field(32, ge=16, description="pixels")
    num_frames: int = Field(5, ge=1, description="frames of a video")
    fps: int = Field(8, ge=1, description="frames per second of the files")
    fail_on: list[str] = Field([], description="names of videos whose making fails")
    crash_on: list[str] = Field([], description="names of videos whose making ends the worker's process")
    hang_on: list[str] = Field([], description="names of videos whose making never ends")
    bad_tries: int | None = Field(
        None, ge=1, description="how many tries of such a video go wrong before one does not; null: all"
    )

    def _identity(self, session: WorkSession) -> Any:
        shape = [self.height, self.width, self.num_frames, self.fps]
        return [shape, code_version(FakeInference, GenerationWork)]

    def _maker(self, session: WorkSession) -> FakeMaker:
        return FakeMaker(self, (session.artifacts.with_name(f".{session.artifacts.name}.tries")).absolute())

    def _fps(self) -> int:
        return self.fps


@dataclass(frozen=True)
class FakeMaker:
    """Makes stripes.

    Attributes:
        settings: what they are like, and what goes wrong.
        tries: folder where tries are counted that go wrong, across workers.
    """

    settings: FakeInference
    tries: Path

    def load(self, device: str) -> None:
        """Takes as long as it is told."""
        time.sleep(self.settings.load_seconds)

    def make(self, unit: VideoUnit, state: None) -> Made:
        """Makes a video of the unit's seed alone.

        Raises:
            JobFailed: it is told to.
        """
        settings = self.settings
        draws = random.Random(unit.seed)
        time.sleep(settings.seconds * (1 + settings.jitter * draws.uniform(-1, 1)))
        if unit.file in settings.crash_on and self._goes_wrong(unit):
            os._exit(1)
        if unit.file in settings.hang_on and self._goes_wrong(unit):
            time.sleep(_FOREVER_S)
        if unit.file in settings.fail_on and self._goes_wrong(unit):
            raise JobFailed(f"the fake generation of '{unit.file}' fails, as fail_on says")
        return Made(_stripes(draws, settings.num_frames, settings.height, settings.width))

    def _goes_wrong(self, unit: VideoUnit) -> bool:
        if self.settings.bad_tries is None:
            return True
        self.tries.mkdir(parents=True, exist_ok=True)
        for number in range(self.settings.bad_tries):
            try:
                (self.tries / f"{unit.key}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False


def _stripes(draws: random.Random, frames: int, height: int, width: int) -> np.ndarray:
    """Stripes in a colour that move; uint8 array of shape (frames, height, width, 3)."""
    colour = np.array([draws.randrange(64, 256) for _ in range(3)])
    slope, period, speed = draws.uniform(-1, 1), draws.uniform(6, 20), draws.uniform(-2, 2)
    time_, row, column = np.ogrid[:frames, :height, :width]
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (column + slope * row + speed * time_) / period)
    return (wave[..., None] * colour).astype(np.uint8)
