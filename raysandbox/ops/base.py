"""What an operator is. Operators are plain classes over batches and know nothing of Ray.

Data-Juicer's parameters that every operator takes are fields of `Operator`, so its recipes
run unmodified. `load` returns the state (models, word lists) and `compute`, `process` and
`features` are pure in it: safe to retry, cheap to ship.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry
from raysandbox.ops.arrays import numpy_of
from raysandbox.ops.batch import Batch, FieldKeys, FrameRequest

__all__ = [
    "OPERATORS",
    "DatasetOperator",
    "Deduplicator",
    "Filter",
    "Mapper",
    "OpResources",
    "Operator",
    "Rewriter",
    "Selector",
    "Stat",
]

OPERATORS = Registry(
    "operator",
    [f"raysandbox.ops.{folder}" for folder in ("filters", "mappers", "deduplicators", "selectors")],
    aliases={
        "document_minhash_deduplicator_with_uid": "document_minhash_deduplicator",
        "ray_bts_minhash_cpp_deduplicator": "document_minhash_deduplicator",
        "ray_bts_minhash_deduplicator": "document_minhash_deduplicator",
        "ray_bts_minhash_deduplicator_with_uid": "document_minhash_deduplicator",
        "ray_document_deduplicator": "document_deduplicator",
        "ray_image_deduplicator": "image_deduplicator",
        "ray_video_deduplicator": "video_deduplicator",
    },
    provider="raysandbox.ops.bridge",
)


@dataclass(frozen=True)
class OpResources:
    """What an operator asks of the machine it runs on, beyond one CPU.

    Attributes:
        num_cpus: CPUs per worker.
        num_gpus: GPUs per worker, may be a fraction; None for one where there are any, else none.
        memory: bytes per worker.
        workers: number of workers; None for as many as fit.
    """

    num_cpus: float = 1
    num_gpus: float | None = 0
    memory: int = 0
    workers: int | None = None


class Operator(Component):
    """One step of a recipe.

    Class attributes:
        no_meaning_here: fields of Data-Juicer that are accepted and have no effect here.
        reads: which of the recipe's columns the operator needs: "text", "image", "video", "audio"; or
            "suffix", that of each row's file in `batch.SUFFIX_COLUMN`; or "stats", what earlier filters computed.
        changes_media: whether it replaces the files that rows name, so that later operators see others.
        needs_model: whether it loads a neural network, and so gains from a GPU.
        runs_code: whether its configuration holds or names code.
    """

    registry: ClassVar[Registry] = OPERATORS
    reads: ClassVar[tuple[str, ...]] = ("text",)
    changes_media: ClassVar[bool] = False
    needs_model: ClassVar[bool] = False
    runs_code: ClassVar[bool] = False
    no_meaning_here: ClassVar[frozenset[str]] = frozenset(
        {
            "accelerator",
            "adaptive_batching",
            "auto_op_parallelism",
            "batch_mode",
            "batch_size",
            "cpu_required",
            "gpu_required",
            "mem_required",
            "memory",
            "num_cpus",
            "num_gpus",
            "num_proc",
            "ray_execution_mode",
            "runtime_env",
            "skip_op_error",
            "stats_export_path",
            "turbo",
            "work_dir",
        }
    )

    text_key: str | None = Field(None, description="column of the text; the recipe's by default")
    image_key: str | None = Field(None, description="column of the image paths; the recipe's by default")
    video_key: str | None = Field(None, description="column of the video paths; the recipe's by default")
    audio_key: str | None = Field(None, description="column of the audio paths; the recipe's by default")

    def keys(self, recipe: FieldKeys) -> FieldKeys:
        """Column names for this operator: its own where given, else the recipe's."""
        return replace(
            recipe,
            text=self.text_key or recipe.text,
            image=self.image_key or recipe.image,
            video=self.video_key or recipe.video,
            audio=self.audio_key or recipe.audio,
        )

    @classmethod
    def needed_extras(cls, raw: Mapping[str, Any]) -> Sequence[str]:
        """Its own, and what a tokenizer needs where texts are split by one."""
        return (*cls.extras, "models") if raw.get("tokenization") else cls.extras

    @classmethod
    def missing(cls) -> str:
        """What must be installed before it can run, in one line; "" when nothing is missing."""
        return ""

    def for_recipe(self, keys: FieldKeys) -> Self:
        """The operator as a recipe with these columns uses it."""
        return self

    def load(self) -> Any:
        """Loads models and lists; called once per worker. The result is passed to every call."""
        return None

    def resources(self) -> OpResources | None:
        """What the operator needs to run, when its state must be loaded once and kept: a model.

        None lets it run in any worker.
        """
        return None

    def frame_requests(self) -> tuple[FrameRequest, ...]:
        """Which frames of its videos it looks at; the requests of a whole recipe share one decode."""
        return ()


@dataclass(frozen=True)
class Stat:
    """A statistic that a filter computes and the arguments that bound it.

    Attributes:
        key: its name in `__dj__stats__`.
        lower: field of the filter that is its lower bound, if there is one.
        upper: field of the filter that is its upper bound, if there is one.
        low: smallest value that the statistic can take.
        high: largest value that the statistic can take.
        integer: whether its values, and so its bounds, are integers.
    """

    key: str
    lower: str | None = None
    upper: str | None = None
    low: float = float("-inf")
    high: float = float("inf")
    integer: bool = False


class Mapper(Operator):
    """Changes rows; may drop or add some."""

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the changed batch."""
        raise NotImplementedError


class Filter(Operator):
    """Computes statistics, then decides by thresholds; the statistics do not depend on them.

    Class attributes:
        stats: what it computes, and which fields bound each.
    """

    stats: ClassVar[tuple[Stat, ...]] = ()

    min_closed_interval: bool = Field(True, description="whether a value equal to the lower bound is inside")
    max_closed_interval: bool = Field(True, description="whether a value equal to the upper bound is inside")
    reversed_range: bool = Field(False, description="keep what lies outside the range instead")

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """Fields that only the decision depends on, not the statistics."""
        bounds = {name for stat in cls.stats for name in (stat.lower, stat.upper) if name}
        return frozenset(bounds | {"min_closed_interval", "max_closed_interval", "reversed_range"})

    def statistics(self) -> tuple[Stat, ...]:
        """What it computes with this configuration: `stats`, unless names depend on a field's value."""
        return self.stats

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns one Arrow array of one value per row for every statistic."""
        raise NotImplementedError

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Returns a bool per row: whether every statistic lies within its bounds.

        A missing value (null or NaN) is never within bounds. With `reversed_range`, the intervals
        say which bounds are kept, as in Data-Juicer: a closed bound is kept as well.
        """
        verdicts = [self._within(stat, stats[stat.key]) for stat in self.statistics()]
        return np.logical_and.reduce(verdicts)

    def _within(self, stat: Stat, values: pa.Array) -> np.ndarray:
        numbers = numpy_of(values).astype(np.float64)
        lower = getattr(self, stat.lower) if stat.lower else None
        upper = getattr(self, stat.upper) if stat.upper else None
        inside = ~np.isnan(numbers)
        if lower is not None:
            inside &= numbers >= lower if self.min_closed_interval != self.reversed_range else numbers > lower
        if upper is not None:
            inside &= numbers <= upper if self.max_closed_interval != self.reversed_range else numbers < upper
        return ~inside if self.reversed_range else inside


class DatasetOperator(Operator):
    """Decides over all rows at once, from small columns computed where the rows are.

    The engine calls `features` on every batch, brings the columns together in input order, calls
    `decide` once, and drops the other rows. Results therefore do not depend on the block layout.
    """

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Returns the columns that the decision needs, one value per row; may be empty."""
        raise NotImplementedError

    def decide(self, features: pa.Table, num_rows: int, seed: int) -> np.ndarray:
        """Returns which rows stay.

        Args:
            features: the columns of all rows, in input order.
            num_rows: number of rows (`features` may have no columns).
            seed: seed for random choices, derived from the recipe's.

        Returns:
            bool array of shape (num_rows,).
        """
        raise NotImplementedError


class Deduplicator(DatasetOperator):
    """Keeps the first row of each group of duplicates."""

    def originals(self, features: pa.Table, num_rows: int) -> np.ndarray:
        """Returns for each row (int64) the index of the first row of its group: its own for one that stays.

        Args:
            features: the columns of all rows, in input order.
            num_rows: number of rows.
        """
        raise NotImplementedError

    def decide(self, features: pa.Table, num_rows: int, seed: int) -> np.ndarray:
        """Returns which rows are the first of their group."""
        return self.originals(features, num_rows) == np.arange(num_rows)


class Selector(DatasetOperator):
    """Keeps some rows by rank, range or chance."""


class Rewriter(DatasetOperator):
    """Makes other rows of all rows; these are in the driver's memory while it does."""

    def features(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """None: it sees the rows themselves."""
        return {}

    def rewrite(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns the new rows.

        Args:
            rows: all rows in input order, with their statistics in `__dj__stats__`.
        """
        raise NotImplementedError
