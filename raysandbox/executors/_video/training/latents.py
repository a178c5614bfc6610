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
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.core.files import atomic_path, atomic_write
from raysandbox.core.keys import DigestMemo, digest
from raysandbox.core.memory import that_fits
from raysandbox.core.runner import WorkSession
from raysandbox.executors._video.models.families import Family
from raysandbox.executors._video.models.layout import PipelineSource, fetch, read_layout
from raysandbox.executors._video.models.prompts_encoding import ENCODING_OPTIONS
from raysandbox.executors._video.options import Dtype, GenerationOptions
from raysandbox.executors._video.training.dataset import Clip
from raysandbox.ops.media import Job
from raysandbox.ops.media.decoder import Fault, decoder

if TYPE_CHECKING:
    import torch

__all__ = [
    "ClipFormat",
    "Encoding",
    "LatentScorer",
    "TextScorer",
    "clip_encoding",
    "encode",
    "part_digest",
    "read_tensors",
    "text_encoding",
]

logger = logging.getLogger(__name__)

_VERSION = 1  # of the files' content
_DECODE_S = 300.0
_READERS = 8  # files that are read at once for their digests: each waits for its disk most of the time

# Families whose pipelines shift latents by the autoencoder's mean and divide them by its deviation.
_STANDARDISED = {"WanPipeline", "SkyReelsV2Pipeline", "LTXPipeline", "MochiPipeline"}


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


@dataclass(frozen=True)
class Encoding:
    """Files that are wanted of clips, or of texts.

    Attributes:
        scorer: makes them.
        targets: the file of each clip or text, in order.
        rows: what the scorer needs to know of those that are not in the cache.
    """

    scorer: LatentScorer | TextScorer
    targets: tuple[Path, ...]
    rows: tuple[Mapping[str, Any], ...]


def clip_encoding(
    session: WorkSession,
    source: PipelineSource,
    family: Family,
    clips: Sequence[Clip],
    form: ClipFormat,
    options: GenerationOptions,
    memo: DigestMemo,
) -> Encoding:
    """Latents of every clip.

    Args:
        session: gives the cluster and the cache.
        source: the model; its part `vae` is used.
        family: of the model.
        clips: what to encode.
        form: what is taken of each.
        options: dtype of the autoencoder, and whether it works in tiles.
        memo: remembers digests of files.
    """
    folder = session.cache_dir.absolute() / "latents"  # workers have other current directories
    common = [_VERSION, family.name, part_digest(source, ("vae",), memo), options.dtype, options.vae_tiling]
    common += [form.height, form.width, form.num_frames, form.stride]
    with ThreadPoolExecutor(_READERS) as pool:  # waits: for local files to be read, no longer
        contents = list(pool.map(lambda clip: memo.of(Path(clip.path)), clips))
    targets: list[Path] = []
    rows: dict[Path, dict[str, Any]] = {}
    for clip, content in zip(clips, contents, strict=True):
        where = int(digest([form.seed, content])[:13], 16) / 16**13
        target = folder / f"{digest([*common, content, where])}.safetensors"
        targets.append(target)
        if not (session.use_cache and target.is_file()):
            rows[target] = {"clip": clip.path, "where": where, "target": str(target)}
    scorer = LatentScorer(source, family.name, form, options.dtype, options.vae_tiling)
    return Encoding(scorer, tuple(targets), tuple(rows.values()))


def text_encoding(
    session: WorkSession,
    source: PipelineSource,
    family: Family,
    texts: Sequence[str],
    options: GenerationOptions,
    memo: DigestMemo,
) -> Encoding:
    """Embeddings of every text, as the pipeline's call takes them.

    Args:
        session: gives the cluster and the cache.
        source: the model; its text encoders are used.
        family: of the model.
        texts: captions or prompts.
        options: dtype, negative prompt and guidance; without guidance there is no negative part.
        memo: remembers digests of files.
    """
    folder = session.cache_dir.absolute() / "text_embeddings"
    encoders = read_layout(fetch(source, weights=True), source.key).encoders
    of_encoding = options.model_dump(mode="json", include=set(ENCODING_OPTIONS))
    common = [_VERSION, family.name, part_digest(source, encoders, memo), of_encoding]
    targets = [folder / f"{digest([*common, text])}.safetensors" for text in texts]
    rows = {
        target: {"caption": text, "target": str(target)}
        for text, target in zip(texts, targets, strict=True)
        if not (session.use_cache and target.is_file())
    }
    return Encoding(TextScorer(source, family, options), tuple(targets), tuple(rows.values()))


def encode(session: WorkSession, encodings: Sequence[Encoding]) -> dict[Path, str]:
    """Has all files made that the cache lacks, by one pass over the cluster.

    Returns:
        why a file could not be made, by its path.

    Raises:
        JobFailed: a file that was made is not here.
    """
    rows = [{**row, "part": part} for part, encoding in enumerate(encodings) for row in encoding.rows]
    if not rows:
        return {}
    logger.info("encoding %s", " and ".join(f"{len(each.rows)} {each.scorer.what}" for each in encodings if each.rows))
    manifest = session.artifacts.absolute() / "encoding.jsonl"
    atomic_write(manifest, "".join(json.dumps(row) + "\n" for row in rows))
    scorer = _Parts(tuple(each.scorer for each in encodings))
    try:
        reasons = session.scorers.score(str(manifest), scorer, on_device=True).column("error").to_pylist()
    finally:
        manifest.unlink()
    errors = {Path(row["target"]): reason for row, reason in zip(rows, reasons, strict=True) if reason}
    for target in (Path(row["target"]) for row in rows):
        if target not in errors and not target.is_file():
            raise JobFailed(
                f"cache_dir: a worker wrote {target}, which is not here: `cache_dir` must be a folder that all nodes "
                f"of the cluster share"
            )
    return errors


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


@dataclass(frozen=True)
class LatentScorer:
    """Encodes clips with a model's autoencoder.

    A file holds `mean` and `std` of the autoencoder's distribution, of shape (channels, frames, height,
    width), scaled as the transformer sees latents: each draw from it is other latents of the clip.
    """

    source: PipelineSource
    family: str
    form: ClipFormat
    dtype: Dtype
    tiling: bool
    what: ClassVar[str] = "clips"

    @property
    def model(self) -> Any:
        """Names what `load` loads."""
        return ("vae", self.source, self.dtype, self.tiling)

    def load(self) -> Any:
        """The autoencoder."""
        from raysandbox.executors._video.models.pipelines import load_vae

        vae = load_vae(self.source, _device(), self.dtype)
        if self.tiling:
            vae.enable_tiling()
        return vae

    def write(self, rows: Sequence[Mapping[str, Any]], state: Any) -> list[str | None]:
        """Writes a file for each row's `clip`; returns why there is none."""
        form = self.form
        size = (form.num_frames, form.stride)
        jobs = [Job("sampled_clip", row["clip"], (*size, row["where"], form.height, form.width)) for row in rows]
        errors: list[str | None] = []
        for row, frames in zip(rows, decoder().answers(jobs, _DECODE_S), strict=True):
            errors.append(frames.reason if isinstance(frames, Fault) else None)
            if not isinstance(frames, Fault):
                _write(Path(row["target"]), self._encoded(state, frames))
        return errors

    def _encoded(self, vae: Any, frames: Any) -> dict[str, torch.Tensor]:
        import torch

        if hasattr(vae, "_clear_conv_cache"):
            vae._clear_conv_cache()  # EasyAnimate's keeps frames of a video whose encoding failed
        pixels = torch.from_numpy(frames).to(vae.device).permute(3, 0, 1, 2)[None]  # (1, 3, frames, height, width)

        def encode() -> Any:
            with torch.no_grad():
                return vae.encode((pixels.float() / 127.5 - 1.0).to(vae.dtype)).latent_dist

        found = that_fits(
            encode, "the memory does not hold the autoencoder and one clip: set vae_tiling, or a lower size"
        )
        shift, scale = _standardisation(vae, self.family)
        mean, std = (found.mean.float() - shift) * scale, found.std.float() * scale
        return {"mean": mean[0].to(vae.dtype), "std": std[0].to(vae.dtype)}


@dataclass(frozen=True)
class TextScorer:
    """Encodes texts with a model's text encoders."""

    source: PipelineSource
    family: Family
    options: GenerationOptions
    what: ClassVar[str] = "captions"

    @property
    def model(self) -> Any:
        """Names what `load` loads."""
        return ("encoders", self.source, self.options.dtype, self.options.offload)

    def load(self) -> Any:
        """A pipeline of the encoders alone."""
        from raysandbox.executors._video.models.pipelines import load_encoders

        return load_encoders(self.source, _device(), self.options)

    def write(self, rows: Sequence[Mapping[str, Any]], state: Any) -> list[str | None]:
        """Writes a file for each row's `caption`."""
        from raysandbox.executors._video.models.pipelines import encode_prompts

        for row in rows:
            _write(Path(row["target"]), encode_prompts(state, self.family, row["caption"], self.options))
        return [None] * len(rows)


@dataclass(frozen=True)
class _Parts:
    """Several scorers in the same workers, each for the rows whose `part` is its number; a `core.runner.RowScorer`.

    One model at a time is in memory.
    """

    scorers: tuple[LatentScorer | TextScorer, ...]

    def load(self) -> dict[Any, Any]:
        """Nothing yet: the rows say which model is needed."""
        return {}

    def score(self, table: pa.Table, state: dict[Any, Any]) -> Mapping[str, pa.Array]:
        """Writes a file for each row; returns why there is none, in `error`."""
        errors: list[str | None] = []
        for part, rows in groupby(table.to_pylist(), key=lambda row: row["part"]):
            scorer = self.scorers[part]
            if scorer.model not in state:
                state.clear()
                state[scorer.model] = scorer.load()
            errors += scorer.write(list(rows), state[scorer.model])
        return {"error": pa.array(errors, pa.string())}


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
