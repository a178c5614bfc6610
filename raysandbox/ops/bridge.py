"""Data-Juicer's other operators as operators of ours, made from a table when they are asked for.

The table (`peer_operators.json`, written by `scripts/make_peer_table`) says enough to check a
recipe; Data-Juicer itself is imported when an operator runs (`bridge_peer`). A statistic, a
parameter or a default means what Data-Juicer says it means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, create_model

from raysandbox.core.component import InputPath
from raysandbox.core.errors import MissingExtraError, UnknownNameError
from raysandbox.core.keys import canonical_json
from raysandbox.ops import bridge_peer
from raysandbox.ops.base import Filter, Mapper, Operator, OpResources, Rewriter, Stat
from raysandbox.ops.batch import Batch, FieldKeys
from raysandbox.ops.media.quantities import MemorySize, memory_bytes

__all__ = ["PeerOperator", "kind_of", "make", "names"]

_TABLE = Path(__file__).with_name("peer_operators.json")
_TYPES: dict[str, Any] = {
    "any": Any,
    "bool": bool,
    "dict": dict[str, Any],
    "float": int | float,  # 1 stays 1
    "int": int,
    "list": list[Any],
    "null": None,
    "path": InputPath,
    "str": str,
}


class PeerOperator(Operator):
    """An operator of Data-Juicer; `make` adds its own parameters.

    Class attributes:
        entry: what the table says of it.
    """

    extras: ClassVar[tuple[str, ...]] = ("datajuicer",)
    reads: ClassVar[tuple[str, ...]] = ()  # media only: a row without a text fails in the operator that reads one
    entry: ClassVar[Mapping[str, Any]] = {}
    no_meaning_here: ClassVar[frozenset[str]] = Operator.no_meaning_here - {
        "accelerator",
        "batch_mode",
        "batch_size",
        "cpu_required",
        "gpu_required",
        "mem_required",
        "memory",
        "num_cpus",
        "num_gpus",
        "num_proc",
    } | {"input_columns", "output_columns"}

    image_bytes_key: str = Field("image_bytes", description="column of the images as bytes")
    system_key: str = Field("system", description="column of the system prompt")
    instruction_key: str = Field("instruction", description="column of the instruction")
    prompt_key: str = Field("prompt", description="column of the prompt")
    query_key: str = Field("query", description="column of the query")
    response_key: str = Field("response", description="column of the response")
    history_key: str = Field("history", description="column of the dialogue before the query")
    index_key: str | None = Field(None, description="column for the number of the row")
    accelerator: str | None = Field(None, description="cpu or cuda; the operator's own by default")
    batch_mode: bool | None = Field(None, description="whether the operator receives several rows at once")
    batch_size: int | None = Field(None, ge=1, description="rows that the operator receives at once")
    num_proc: int | None = Field(None, description="number of workers; as many as fit by default")
    num_cpus: float | None = Field(None, ge=0, description="CPUs of a worker")
    num_gpus: float | None = Field(None, ge=0, description="GPUs of a worker, may be a fraction")
    memory: MemorySize = Field(None, description="memory of a worker: 9GB, or gigabytes; of its GPU where it uses one")
    cpu_required: float | None = Field(None, ge=0, description="older name of num_cpus")
    gpu_required: float | None = Field(None, ge=0, description="older name of num_gpus")
    mem_required: MemorySize = Field(None, description="older name of memory")

    @classmethod
    def missing(cls) -> str:
        """Says what to install where Data-Juicer is not."""
        return "" if bridge_peer.installed() else str(_not_installed(cls.type_name))

    def for_recipe(self, keys: FieldKeys) -> Self:
        """The operator with the recipe's columns: Data-Juicer's wants to know them when it is made."""
        columns = {"text_key": keys.text, "image_key": keys.image, "video_key": keys.video, "audio_key": keys.audio}
        return self.model_copy(update={k: v for k, v in columns.items() if k not in self.model_fields_set})

    def resources(self) -> OpResources | None:
        """What Data-Juicer's operator declares, or the recipe says instead."""
        on_gpu = (self.accelerator or self.entry.get("accelerator")) == "cuda"
        gpus = self.num_gpus if self.num_gpus is not None else self.gpu_required
        if gpus is None:
            gpus = None if on_gpu else 0
        memory = self.memory or self.mem_required or self.entry.get("memory")
        wanted = OpResources(
            num_cpus=self.num_cpus or self.cpu_required or 1,
            num_gpus=gpus,
            memory=memory_bytes(memory) if memory and not on_gpu else 0,
            workers=self.num_proc if self.num_proc and self.num_proc > 0 else None,
        )
        return wanted if self.needs_model or wanted != OpResources() else None

    def load(self) -> Any:
        """Makes Data-Juicer's operator.

        Raises:
            MissingExtraError: Data-Juicer is not installed.
            JobFailed: the operator cannot be made.
        """
        return self._make(self.no_meaning_here)

    def _make(self, without: frozenset[str]) -> Any:
        if not bridge_peer.installed():
            raise _not_installed(self.type_name)
        given = self.model_dump(exclude_unset=True, exclude=set(without))
        return bridge_peer.operator(self.type_name, given, _table()["version"])

    def __reduce__(self) -> tuple[Any, ...]:
        # The class exists only where it was made.
        return _restored, (self.type_name, self.model_dump(exclude_unset=True))


class PeerMapper(PeerOperator, Mapper):
    """A mapper, or an aggregator: it turns rows that a grouper made into others, one by one."""

    def process(self, batch: Batch, state: Any) -> Batch:
        """Applies Data-Juicer's operator; statistics travel in the rows, as they do there."""
        table = bridge_peer.mapped(state, batch.to_table(with_stats=True))
        result = Batch.from_table(table, batch.keys)
        return replace(batch, table=result.table, stats=result.stats, _views={})


class PeerRowFilter(PeerOperator, Mapper):
    """A filter without statistics: it decides by the row itself."""

    def process(self, batch: Batch, state: Any) -> Batch:
        """Keeps the rows that Data-Juicer's operator keeps."""
        return batch.select(bridge_peer.kept_rows(state, batch.to_table(with_stats=True)))


class PeerFilter(PeerOperator, Filter):
    """A filter: statistics first, then the decision by them."""

    @classmethod
    def thresholds(cls) -> frozenset[str]:
        """The parameters that only Data-Juicer's decision looks at."""
        return super().thresholds() | frozenset(cls.entry.get("thresholds", ()))

    def load(self) -> Any:
        """Makes Data-Juicer's operator as it computes; its model serves all thresholds."""
        return self._make(self.no_meaning_here | self.thresholds())

    def compute(self, batch: Batch, state: Any) -> Mapping[str, pa.Array]:
        """Data-Juicer's statistics."""
        return bridge_peer.statistics(state, batch.table, [stat.key for stat in self.stats])

    def keep(self, stats: Mapping[str, pa.Array]) -> np.ndarray:
        """Data-Juicer's decision."""
        return bridge_peer.kept(_decider(self.type_name, canonical_json(self.model_dump(exclude_unset=True))), stats)


class PeerRewriter(PeerOperator, Rewriter):
    """A deduplicator, selector or grouper: it sees all rows at once, in the driver."""

    def load(self) -> None:
        """Nothing: workers only bring the rows together."""

    def resources(self) -> None:
        """Nothing of the workers."""

    def rewrite(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The rows that Data-Juicer's operator makes of all rows."""
        return bridge_peer.rewritten(self._make(self.no_meaning_here), rows)


_BASES: dict[str, type[PeerOperator]] = {
    "aggregator": PeerMapper,
    "deduplicator": PeerRewriter,
    "filter": PeerFilter,
    "grouper": PeerRewriter,
    "mapper": PeerMapper,
    "row_filter": PeerRowFilter,
    "selector": PeerRewriter,
}


@cache
def _table() -> Mapping[str, Any]:
    return json.loads(_TABLE.read_text(encoding="utf-8"))


def names() -> list[str]:
    """Names of Data-Juicer's operators, sorted."""
    return list(_table()["operators"])


def kind_of(name: str) -> str:
    """mapper, filter, deduplicator, selector, grouper, aggregator or pipeline."""
    return _table()["operators"][name]["kind"].removeprefix("row_")


@cache
def make(name: str) -> type[PeerOperator]:
    """The class of one of Data-Juicer's operators.

    Raises:
        UnknownNameError: it has a name that cannot be an operator here.
    """
    entry = _table()["operators"][name]
    if entry["kind"] == "pipeline":
        raise UnknownNameError(f"operator '{name}' of Data-Juicer drives Ray by itself and cannot be part of a plan")
    fields: dict[str, Any] = {key: _field(value) for key, value in entry["parameters"].items()}
    title = "".join(word.capitalize() for word in name.split("_"))
    doc = f"Data-Juicer's {kind_of(name)} of this name, through the bridge."
    cls = create_model(title, __base__=_BASES[entry["kind"]], __module__=__name__, __doc__=doc, **fields)
    cls.type_name = name
    cls.entry = entry
    cls.reads = tuple(kind for kind in ("image", "video", "audio") if f"{kind}_key" in entry.get("reads", ()))
    cls.needs_model = entry.get("model", False) or entry.get("accelerator") == "cuda"
    cls.runs_code = entry.get("runs_code", False)
    if issubclass(cls, PeerFilter):
        cls.stats = tuple(Stat(*stat) for stat in entry["stats"])
    return cls


@lru_cache(maxsize=64)
def _decider(name: str, parameters: str) -> Any:
    """A filter of Data-Juicer as it decides: it never loads its model."""
    operator = make(name).model_validate(json.loads(parameters))
    return operator._make(operator.no_meaning_here)


def _field(parameter: Mapping[str, Any]) -> tuple[Any, Any]:
    """Type and default of a parameter."""
    first, *others = sorted(parameter["types"], key=lambda name: name == "null")
    union: Any = _TYPES[first]
    for name in others:
        union = union | _TYPES[name]
    if parameter.get("required"):
        return union, ...
    return (union, parameter["default"]) if "default" in parameter else (union | None, None)


def _restored(name: str, parameters: Mapping[str, Any]) -> PeerOperator:
    return make(name).model_validate(parameters)


def _not_installed(name: str) -> MissingExtraError:
    return MissingExtraError("py-data-juicer", "datajuicer", f"operator {name} of Data-Juicer")
