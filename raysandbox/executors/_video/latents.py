"""Clips as latents and captions as embeddings: computed once by a pass over the cluster, kept by content.

A file of the cache holds what any training needs of one clip or caption, so that neither the
autoencoder nor the text encoder is in memory while a transformer is trained.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_path, atomic_write
from raysandbox.core.keys import DigestMemo, digest
from raysandbox.core.runner import RowScorer, WorkSession
from raysandbox.executors._video.dataset import BadClip, Clip
from raysandbox.executors._video.families import Family
from raysandbox.executors._video.layout import PipelineSource, fetch, read_layout
from raysandbox.executors._video.options import Dtype, GenerationOptions
from raysandbox.ops.media import Job
from raysandbox.ops.media.decoder import Fault, decoder

if TYPE_CHECKING:
    import torch

__all__ = ["ClipFormat", "LatentScorer", "TextScorer", "encode_clips", "encode_texts", "part_digest", "read_tensors"]

logger = logging.getLogger(__name__)

_VERSION = 1  # of the files' content
_DECODE_S = 300.0
_READERS = 8  # files that are read at once for their digests: each waits for its disk most of the time

# Families whose pipelines shift latents by the autoencoder's mean and divide them by its deviation.
_STANDARDISED = {"WanPipeline", "LTXPipeline", "MochiPipeline"}


@dataclass(frozen=True)
class ClipFormat:
    """What is taken of a clip.

    Attributes:
        height: in pixels, cut from the middle.
        width: in pixels, cut from the middle.
        num_frames: how many.
        stride: distance between them in frames; smaller where a clip is too short.
        seed: of the first frame.
    """

    height: int
    width: int
    num_frames: int
    stride: int
    seed: int


def encode_clips(
    session: WorkSession,
    source: PipelineSource,
    family: Family,
    clips: Sequence[Clip],
    form: ClipFormat,
    options: GenerationOptions,
    memo: DigestMemo,
) -> list[Path | BadClip]:
    """Latents of every clip.

    Args:
        session: gives the cluster and the cache.
        source: the model; its part `vae` is used.
        family: of the model.
        clips: what to encode.
        form: what is taken of each.
        options: dtype of the autoencoder, and whether it works in tiles.
        memo: remembers digests of files.

    Returns:
        A file for each clip, or why it cannot be decoded.
    """
    folder = session.cache_dir.absolute() / "latents"  # workers have other current directories
    common = [_VERSION, family.name, part_digest(source, ("vae",), memo), options.dtype, options.vae_tiling]
    common += [form.height, form.width, form.num_frames, form.stride]
    with ThreadPoolExecutor(_READERS) as pool:
        contents = list(pool.map(lambda clip: memo.of(Path(clip.path)), clips))
    targets: list[Path] = []
    rows: dict[Path, dict[str, Any]] = {}
    for clip, content in zip(clips, contents, strict=True):
        chance = digest([form.seed, content])
        where = int(chance[:13], 16) / 16**13
        target = folder / f"{digest([*common, content, where])}.safetensors"
        targets.append(target)
        if not (session.use_cache and target.is_file()):
            rows[target] = {"clip": clip.path, "where": where, "target": str(target)}
    scorer = LatentScorer(source, family.name, form, options.dtype, options.vae_tiling)
    errors = _scored(session, list(rows.values()), scorer, "clips")
    return [
        BadClip(clip.place, clip.path, errors[str(target)]) if str(target) in errors else target
        for clip, target in zip(clips, targets, strict=True)
    ]


def encode_texts(
    session: WorkSession,
    source: PipelineSource,
    family: Family,
    texts: Sequence[str],
    options: GenerationOptions,
    memo: DigestMemo,
) -> dict[str, Path]:
    """Embeddings of every distinct text, as the pipeline's call takes them.

    Args:
        session: gives the cluster and the cache.
        source: the model; its text encoders are used.
        family: of the model.
        texts: captions or prompts.
        options: dtype, negative prompt and guidance; without guidance there is no negative part.
        memo: remembers digests of files.

    Returns:
        The file of each text.
    """
    folder = session.cache_dir.absolute() / "text_embeddings"
    encoders = read_layout(fetch(source, weights=True), source.key).encoders
    common = [_VERSION, family.name, part_digest(source, encoders, memo), options.model_dump(mode="json")]
    targets = {text: folder / f"{digest([*common, text])}.safetensors" for text in texts}
    rows = [
        {"caption": text, "target": str(target)}
        for text, target in targets.items()
        if not (session.use_cache and target.is_file())
    ]
    _scored(session, rows, TextScorer(source, family, options), "captions")
    return targets


def part_digest(source: PipelineSource, parts: Sequence[str], memo: DigestMemo) -> str:
    """Digest of the content of some of a model's parts."""
    folder = fetch(source, weights=True)
    return digest([[part, memo.of(folder / part)] for part in parts])


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The content of a file of the cache.

    Raises:
        JobFailed: it is gone, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise JobFailed(
            f"the cached file {path} cannot be read: {error} (remove it and run again; on a cluster `cache_dir` must "
            f"be a folder that all nodes share)"
        ) from error


def _scored(session: WorkSession, rows: Sequence[Mapping[str, Any]], scorer: RowScorer, what: str) -> dict[str, str]:
    """Has files made by the cluster; returns the reasons of those that could not, by target.

    Raises:
        JobFailed: a file that was made is not here.
    """
    if not rows:
        return {}
    logger.info("encoding %d %s", len(rows), what)
    manifest = session.artifacts.absolute() / f"{what}.jsonl"
    atomic_write(manifest, "".join(json.dumps(row) + "\n" for row in rows))
    try:
        table = session.scorers.score(str(manifest), scorer, on_device=True)
    finally:
        manifest.unlink()
    reasons = table.column("error").to_pylist()
    errors = {row["target"]: reason for row, reason in zip(rows, reasons, strict=True) if reason}
    for row in rows:
        if row["target"] not in errors and not Path(row["target"]).is_file():
            raise JobFailed(
                f"cache_dir: a worker wrote {row['target']}, which is not here: `cache_dir` must be a folder "
                f"that all nodes of the cluster share"
            )
    return errors


@dataclass(frozen=True)
class LatentScorer:
    """Encodes clips with a model's autoencoder; a `core.runner.RowScorer`.

    A file holds `mean` and `std` of the autoencoder's distribution, of shape (channels, frames, height,
    width), scaled as the transformer sees latents: each draw from it is other latents of the clip.
    """

    source: PipelineSource
    family: str
    form: ClipFormat
    dtype: Dtype
    tiling: bool

    def load(self) -> Any:
        """The autoencoder."""
        from raysandbox.executors._video.pipelines import load_vae

        vae = load_vae(self.source, _device(), self.dtype)
        if self.tiling:
            vae.enable_tiling()
        return vae

    def score(self, table: pa.Table, state: Any) -> Mapping[str, pa.Array]:
        """Writes a file for each row's `clip`; returns why there is none, in `error`."""
        rows = table.to_pylist()
        form = self.form
        size = (form.num_frames, form.stride)
        jobs = [Job("sampled_clip", row["clip"], (*size, row["where"], form.height, form.width)) for row in rows]
        errors: list[str | None] = []
        for row, frames in zip(rows, decoder().answers(jobs, _DECODE_S), strict=True):
            errors.append(frames.reason if isinstance(frames, Fault) else None)
            if not isinstance(frames, Fault):
                _write(Path(row["target"]), self._encoded(state, frames))
        return {"error": pa.array(errors, pa.string())}

    def _encoded(self, vae: Any, frames: Any) -> dict[str, torch.Tensor]:
        import torch

        if hasattr(vae, "_clear_conv_cache"):
            vae._clear_conv_cache()  # EasyAnimate's keeps frames of a video whose encoding failed
        pixels = torch.from_numpy(frames).to(vae.device).permute(3, 0, 1, 2)[None]  # (1, 3, frames, height, width)
        with torch.no_grad():
            found = vae.encode((pixels.float() / 127.5 - 1.0).to(vae.dtype)).latent_dist
        shift, scale = _standardisation(vae, self.family)
        mean, std = (found.mean.float() - shift) * scale, found.std.float() * scale
        return {"mean": mean[0].to(vae.dtype), "std": std[0].to(vae.dtype)}


@dataclass(frozen=True)
class TextScorer:
    """Encodes texts with a model's text encoders; a `core.runner.RowScorer`."""

    source: PipelineSource
    family: Family
    options: GenerationOptions

    def load(self) -> Any:
        """A pipeline of the encoders alone."""
        from raysandbox.executors._video.pipelines import load_encoders

        return load_encoders(self.source, _device(), self.options)

    def score(self, table: pa.Table, state: Any) -> Mapping[str, pa.Array]:
        """Writes a file for each row's `caption`; `error` is always null."""
        from raysandbox.executors._video.pipelines import encode_prompts

        for row in table.to_pylist():
            _write(Path(row["target"]), encode_prompts(state, self.family, row["caption"], self.options))
        return {"error": pa.nulls(table.num_rows, pa.string())}


def _standardisation(vae: Any, family: str) -> tuple[Any, Any]:
    """What to subtract from an autoencoder's latents, and what to multiply them by then, as the pipelines do."""
    import torch

    factor = float(vae.config.get("scaling_factor") or 1.0)
    if family not in _STANDARDISED:
        return 0.0, factor
    values, weights = [], dict(vae.named_buffers())
    for name, default in (("latents_mean", 0.0), ("latents_std", 1.0)):
        value = weights.get(name, vae.config.get(name))  # LTX's are a part of its weights
        value = torch.as_tensor(default if value is None else value, dtype=torch.float32, device=vae.device)
        values.append(value.reshape(1, -1, 1, 1, 1))
    mean, std = values
    return mean, factor / std


def _write(target: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    from safetensors.torch import save

    with atomic_path(target) as temporary:
        temporary.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))


def _device() -> str:
    """Workers without a GPU of their own see none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
