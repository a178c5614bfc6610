"""Videos that a model generates while it is trained, to look at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_write, remove
from raysandbox.core.keys import digest
from raysandbox.executors._video.clips import file_name, write_mp4
from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.layout import PipelineSource
from raysandbox.executors._video.training.latents import read_tensors
from raysandbox.executors._video.training.options import TrainingOptions

__all__ = ["Samples"]

logger = logging.getLogger(__name__)

_OPTIONS = ".options"  # names what the videos of a folder were made with


@dataclass
class Samples:
    """Makes the sample videos of a checkpoint; loads the autoencoder for the first one.

    Attributes:
        options: of the training.
        source: the model.
        prompts: each with the file of its embeddings.
        device: where the transformer is.
        rank: number of this worker.
        size: how many workers share the videos, so that none of them waits long for the others.
    """

    options: TrainingOptions
    source: PipelineSource
    prompts: Sequence[tuple[str, Path]]
    device: str
    rank: int = 0
    size: int = 1
    _pipe: Any = None

    def lacking(self, folder: Path) -> list[tuple[str, Path]]:
        """The prompts whose videos are not in a folder, or are of other options."""
        if not self._are_of_these_options(folder):
            return list(self.prompts)
        return [(prompt, file) for prompt, file in self.prompts if not (folder / file_name(prompt, 0)).is_file()]

    def begin(self, folder: Path) -> None:
        """Makes room in a folder; to be called once, before any worker writes."""
        if not self._are_of_these_options(folder):
            remove(folder)
            atomic_write(folder / _OPTIONS, self._identity())

    def write(self, folder: Path, transformer: Any) -> int:
        """Writes this worker's share of the videos that are lacking, `{prompt}-0.mp4`; returns how many failed."""
        failed = 0
        own = set(self.prompts[self.rank :: self.size])
        for prompt, file in (each for each in self.lacking(folder) if each in own):
            try:
                self._write(folder / file_name(prompt, 0), file, transformer)
            except JobFailed as error:  # a picture of the training is not worth the training
                logger.warning("sample_prompts: there is no video of '%s' in %s: %s", prompt, folder, error)
                failed += 1
        return failed

    def _write(self, target: Path, embeddings: Path, transformer: Any) -> None:
        from raysandbox.executors._video.models.pipelines import generate, pipeline_around, torch_dtype

        family, options = family_of(self.source.model, self.source.key), self.options.samples
        if self._pipe is None:
            self._pipe = pipeline_around(transformer, self.source, self.device, options)
        dtype = torch_dtype(options.dtype)
        stored = read_tensors(embeddings).items()
        encoded = {name: each.to(dtype) if each.is_floating_point() else each for name, each in stored}
        seed = self.options.sample_options.seed
        frames = generate(self._pipe, family, options, seed, prompt=None, encoded=encoded)
        write_mp4(target, frames, options.fps)

    def _are_of_these_options(self, folder: Path) -> bool:
        try:
            return (folder / _OPTIONS).read_text(encoding="utf-8") == self._identity()
        except OSError:
            return False

    def _identity(self) -> str:
        return digest([self.options.samples.model_dump(mode="json"), self.options.sample_options.seed])
