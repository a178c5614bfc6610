"""Prompts are encoded once, before the videos are made, and kept by content: the encoder is not needed after."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_path
from raysandbox.core.keys import digest
from raysandbox.core.runner import UnitFailed, WorkSession
from raysandbox.executors._video.generation.generating import TRIES, Failed, appears
from raysandbox.executors._video.generation.units import VideoUnit
from raysandbox.executors._video.models.calls import check_arguments
from raysandbox.executors._video.models.families import family_of
from raysandbox.executors._video.models.pipelines import PipelineSource, encode_prompts, load_encoders
from raysandbox.executors._video.options import GenerationOptions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EncodedPrompts", "read_encoded"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _EncodingUnit:
    """A prompt to be encoded, and the file for it."""

    prompt: str
    target: str


@dataclass(frozen=True)
class _EncodingWork:
    """`core.runner.UnitWork`: a file of tensors per prompt."""

    source: PipelineSource
    options: GenerationOptions

    def load(self, device: str) -> Any:
        pipe = load_encoders(self.source, device, self.options)
        check_arguments(type(pipe), family_of(self.source.model, self.source.key), self.options)
        return pipe

    def run(self, unit: _EncodingUnit, state: Any) -> None:
        import safetensors.torch

        encoded = encode_prompts(state, family_of(self.source.model, self.source.key), unit.prompt, self.options)
        tensors = {name: tensor.contiguous() for name, tensor in encoded.items()}
        content = safetensors.torch.save(tensors)
        with atomic_path(Path(unit.target)) as temporary:  # safetensors' own files are readable by their owner only
            temporary.write_bytes(content)


@dataclass(frozen=True)
class EncodedPrompts:
    """Encodes the prompts of units that are to be made (`generating.Prepare`).

    Attributes:
        source: which model.
        options: what an encoded prompt depends on, among others.
        identity: what all of them depend on, as a JSON-like value.
        session: of the job.
        stall_timeout_s: after how long at one prompt, or at loading, a worker counts as lost; None for never.
    """

    source: PipelineSource
    options: GenerationOptions
    identity: Any
    session: WorkSession
    stall_timeout_s: float | None = None

    def __call__(self, units: Sequence[VideoUnit]) -> tuple[Sequence[VideoUnit], Sequence[Failed]]:
        """Returns the units with their files of encoded prompts, and those whose prompt could not be encoded."""
        folder = (self.session.cache_dir / "prompt_embeds" / digest(self.identity)[:32]).absolute()
        files = {prompt: _file_of(folder, prompt) for prompt in dict.fromkeys(unit.prompt for unit in units)}
        reusable = self.session.use_cache
        missing = [
            _EncodingUnit(prompt, str(file)) for prompt, file in files.items() if not (reusable and file.is_file())
        ]
        failed = self._encode(missing)
        self.session.report({"prompts_encoded": float(len(missing) - len(failed))})
        ready = [unit.with_encoded(str(files[unit.prompt])) for unit in units if unit.prompt not in failed]
        return ready, [Failed(unit, failed[unit.prompt]) for unit in units if unit.prompt in failed]

    def _encode(self, missing: Sequence[_EncodingUnit]) -> dict[str, str]:
        """Encodes prompts; returns the reasons of those that failed.

        Raises:
            JobFailed: the first one that a worker encoded is not here.
        """
        results = self.session.workers.map(
            _EncodingWork(self.source, self.options),
            missing,
            description=f"encoding {len(missing)} prompts",
            noun="prompts",
            elastic=True,
            tries=TRIES,
            stall_timeout_s=self.stall_timeout_s,
        )
        failed: dict[str, str] = {}
        with contextlib.closing(results) as results:  # its workers end with it
            for index, result in results:
                unit = missing[index]
                if isinstance(result, UnitFailed):
                    failed[unit.prompt] = f"its prompt was not encoded: {result.reason}"
                elif not appears(Path(unit.target)):
                    raise JobFailed(
                        f"an encoded prompt that a worker wrote is not at {unit.target} here: on several nodes "
                        f"cache_dir must lie on storage that all of them share (or set encode_prompts_first: false)"
                    )
        logger.info("%d prompts encoded, %d failed", len(missing) - len(failed), len(failed))
        return failed


def read_encoded(path: str) -> dict[str, Tensor]:
    """The tensors of an encoded prompt, by argument of the pipeline's call.

    Raises:
        JobFailed: the file is not there, or is damaged.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load(Path(path).read_bytes())
    except (OSError, SafetensorError) as error:
        raise JobFailed(
            f"the encoded prompt {path} cannot be read here: {error} (on several nodes cache_dir must lie on storage "
            f"that all of them share; a damaged file is made anew with --no-cache)"
        ) from error


def _file_of(folder: Path, prompt: str) -> Path:
    return folder / f"{hashlib.sha256(prompt.encode()).hexdigest()[:40]}.safetensors"
