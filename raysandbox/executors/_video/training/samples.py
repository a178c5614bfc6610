"""Videos that a model generates while it is trained, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.executors._video.clips import file_name, write_mp4
from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.layout import PipelineSource, fetch, read_layout
from raysandbox.executors._video.training.latents import read_tensors
from raysandbox.executors._video.training.options import TrainingOptions

__all__ = ["Samples"]


@dataclass
class Samples:
    """Makes the sample videos of a checkpoint; loads the autoencoder for the first one.

    Attributes:
        options: of the training.
        source: the model.
        prompts: each with the file of its embeddings.
        device: where the transformer is.
    """

    options: TrainingOptions
    source: PipelineSource
    prompts: Sequence[tuple[str, Path]]
    device: str
    _pipe: Any = None

    def write(self, folder: Path, transformer: Any) -> None:
        """Writes a video of each prompt, `{prompt}-0.mp4`."""
        from raysandbox.executors._video.models.pipelines import generate, torch_dtype

        if self._pipe is None:
            self._pipe = self._assembled(transformer)
        family, options = family_of(self.source.model, self.source.key), self.options.samples
        dtype = torch_dtype(self.options.dtype)
        for prompt, file in self.prompts:
            stored = read_tensors(file).items()
            encoded = {name: each.to(dtype) if each.is_floating_point() else each for name, each in stored}
            seed = self.options.sample_options.seed
            frames = generate(self._pipe, family, options, seed, prompt=None, encoded=encoded)
            write_mp4(folder / file_name(prompt, 0), frames, options.fps)

    def _assembled(self, transformer: Any) -> Any:
        """A pipeline around the transformer that is trained, without text encoders."""
        import diffusers

        from raysandbox.executors._video.models.pipelines import load_vae

        layout = read_layout(fetch(self.source, weights=True), self.source.key)
        parts: dict[str, Any] = dict.fromkeys(layout.encoders)
        parts |= {"transformer": transformer, "vae": load_vae(self.source, self.device, self.options.dtype)}
        kind = getattr(diffusers, layout.pipeline)
        pipe = kind.from_pretrained(str(layout.folder), local_files_only=True, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe
