"""Filters that look at pictures with a neural network: their resources, frames and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import path_refs
from raysandbox.core.errors import UserError
from raysandbox.ops.base import OpResources
from raysandbox.ops.batch import Batch, FrameRequest, RowFaults
from raysandbox.ops.media import images, video_frames
from raysandbox.ops.media.quantities import MemorySize, memory_bytes
from raysandbox.ops.media_filter import MediaFilter
from raysandbox.ops.pretrained import Source, missing_weights_of, transformers_package

__all__ = ["GIB", "MIB", "ImageModelFilter", "ModelFilter", "ReduceMode", "VideoModelFilter", "lists_of", "reduced"]

MIB, GIB = 1 << 20, 1 << 30
ReduceMode = Literal["avg", "max", "min"]

_HERE = {"accelerator", "batch_size", "memory", "num_cpus", "num_gpus", "num_proc"}
_REDUCTIONS = {"avg": np.mean, "max": np.max, "min": np.min}


class ModelFilter(MediaFilter):
    """Keeps rows by what a neural network says of the pictures in their files.

    Class attributes:
        usual_memory: bytes that a worker with the model needs, as Data-Juicer reckons.
    """

    extras: ClassVar[tuple[str, ...]] = ("models",)
    needs_model: ClassVar[bool] = True
    usual_memory: ClassVar[int] = GIB
    no_meaning_here: ClassVar[frozenset[str]] = MediaFilter.no_meaning_here - _HERE

    trust_remote_code: bool = Field(False, description="whether Python code that lies beside the weights may run")
    accelerator: Literal["cpu", "cuda"] | None = Field(
        None, description="where the model runs; by default on a GPU where there is one"
    )
    batch_size: int = Field(32, ge=1, description="pictures that the model sees at once")
    num_cpus: float = Field(1, ge=0, description="CPUs of each worker on Ray")
    num_gpus: float | None = Field(
        None, ge=0, description="GPUs of each worker on Ray, or a fraction of one; by default one where there is any"
    )
    num_proc: Annotated[int, Field(ge=1)] | Literal[-1] | None = Field(
        None, description="workers on Ray; null or -1 for as many as fit"
    )
    memory: MemorySize = Field(
        None, description="memory of each worker on Ray: 1500MB, or gigabytes; by default the model's usual need"
    )

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """Where and in what batches the model runs does not change the statistics."""
        return super().thresholds() | _HERE

    @classmethod
    def missing_weights(cls, raw: Mapping[str, Any]) -> Mapping[str, str]:
        """The model, when it is an id of the hub that was not fetched yet."""
        found = {str(ref.key[0]): missing_weights_of(ref.path) for ref in path_refs(cls, raw)}
        return {key: message for key, message in found.items() if message}

    def resources(self) -> OpResources:
        """A worker of its own for the model, with a GPU unless that is declined or there is none."""
        gpus = {"cpu": 0, "cuda": self.num_gpus or 1, None: self.num_gpus}[self.accelerator]
        workers = None if self.num_proc == -1 else self.num_proc
        memory = memory_bytes(self.memory) if self.memory else self.usual_memory
        return OpResources(self.num_cpus, gpus, memory, workers)

    def source(self, field: str, default: str = "") -> Source:
        """The model that a field names, and how to use it in this process.

        Raises:
            UserError: a GPU is insisted on and there is none.
        """
        transformers_package()
        name = getattr(self, field) or default
        return Source(f"{self.type_name}: {field}", name, self._device(), self.batch_size, self.trust_remote_code)

    def _device(self) -> str:
        import torch

        if self.resources().num_gpus != 0 and torch.cuda.is_available():
            return "cuda"
        if self.accelerator == "cuda":
            raise UserError(f"{self.type_name}: accelerator is cuda and this process sees no GPU (leave it out)")
        return "cpu"


class ImageModelFilter(ModelFilter):
    """Keeps rows by a score of each of their images."""

    reads: ClassVar[tuple[str, ...]] = ("image",)

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns one score per image."""
        rows = images(batch)
        scores = state.scores(list(chain.from_iterable(rows)))
        return {self.stats[0].key: lists_of(scores, map(len, rows))}


class VideoModelFilter(ModelFilter):
    """Keeps rows by a score of each of their videos, made of the scores of some frames."""

    reads: ClassVar[tuple[str, ...]] = ("video",)

    frame_sampling_method: Literal["all_keyframes", "uniform"] = Field(
        "all_keyframes", description="all_keyframes; or uniform, frame_num frames from the first to the last"
    )
    frame_num: int = Field(3, ge=1, description="frames per video for uniform: 1 is the middle one, 2 first and last")
    frame_field: str | None = Field(
        None,
        description="column with the paths of each video's frames: where it exists, frame_num of them are looked at "
        "instead of the video",
    )
    reduce_mode: ReduceMode = Field("avg", description="how the scores of the frames become one")

    def frame_requests(self) -> tuple[FrameRequest, ...]:
        """Its key frames, or some at equal distances."""
        return () if self.frame_field else (self.request,)

    @property
    def request(self) -> FrameRequest:
        """Which frames of each video it looks at."""
        uniform = self.frame_sampling_method == "uniform"
        return FrameRequest("uniform", count=self.frame_num) if uniform else FrameRequest("all_keyframes")

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns one score per video; the frames of all videos go through the model together."""
        rows = self.pictures(batch)
        videos = list(chain.from_iterable(rows))
        scores = reduced(state.scores(list(chain.from_iterable(videos))), map(len, videos), self.reduce_mode)
        return {self.stats[0].key: lists_of(scores, map(len, rows))}

    def pictures(self, batch: Batch) -> Sequence[Sequence[Any]]:
        """For each row and video the frames to look at: PIL images or uint8 arrays of shape (H, W, 3)."""
        if self.frame_field and self.frame_field in batch.table.column_names:
            return _stored_frames(batch, self.frame_field, self.frame_num)
        return video_frames(batch, self.request)


def _stored_frames(batch: Batch, column: str, most: int) -> list[list[Any]]:
    """Frames that stand in files of their own: a list of videos per row, a list of paths per video."""
    rows: list[list[list[str]]] = [row or [] for row in batch.table.column(column).to_pylist()]
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    paths = [_spread(video, most) for row in rows for video in row]
    videos = replace(batch, table=pa.table({batch.keys.image: pa.array(paths, pa.list_(pa.string()))}), _views={})
    try:
        pictures = iter(images(videos))
    except RowFaults as faults:
        raise RowFaults({int(owners[video]): reason for video, reason in faults.faults.items()}) from faults
    return [[next(pictures) for _ in row] for row in rows]


def _spread(paths: Sequence[str], most: int) -> list[str]:
    """At most so many, at equal distances from the first to the last."""
    if len(paths) <= most:
        return list(paths)
    return [paths[int(index)] for index in np.linspace(0, len(paths) - 1, most)]


def reduced(scores: np.ndarray, lengths: Iterable[int], mode: ReduceMode) -> np.ndarray:
    """One score (float64) of each run of consecutive scores; 0 of an empty run, as in Data-Juicer."""
    ends = np.cumsum(list(lengths))
    runs = np.split(scores.astype(np.float64), ends[:-1]) if len(ends) else []
    return np.array([_REDUCTIONS[mode](run) if len(run) else 0.0 for run in runs], np.float64)


def lists_of(values: np.ndarray, lengths: Iterable[int]) -> pa.Array:
    """Consecutive values as one list (of float64) per row."""
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.float64)))
