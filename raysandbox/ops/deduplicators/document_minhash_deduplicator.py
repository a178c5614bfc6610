"""Drops texts that are nearly equal to an earlier one, by MinHash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raysandbox.core.component import ModelPath
from raysandbox.core.registry import register
from raysandbox.ops.batch import Batch
from raysandbox.ops.shingles import ShingleDeduplicator
from raysandbox.ops.tokenization import Splitter, load_splitter

__all__ = ["DocumentMinhashDeduplicator"]

_BANDS = "__dj__minhash"


@register("document_minhash_deduplicator")
class DocumentMinhashDeduplicator(ShingleDeduplicator):
    """Keeps the first of texts that are alike: whose shingles have a high Jaccard similarity."""

    example: ClassVar[Mapping[str, Any]] = {"window_size": 3, "jaccard_threshold": 0.8, "num_permutations": 128}
    no_meaning_here: ClassVar[frozenset[str]] = ShingleDeduplicator.no_meaning_here | {
        "actor_memory",
        "max_pending_edge_buffer_task",
        "max_pending_filter_tasks",
        "memory_per_sample",
        "merge_batch_size",
        "minhash_batch_size",
        "num_edge_buffer_task_returns",
        "num_filter_task_returns",
        "task_memory",
        "union_find_parallel_num",
        "union_threshold",
    }

    tokenization: Literal["space", "punctuation", "character", "sentencepiece"] = Field(
        "space", description="what tokens are: words between spaces, text between punctuation, characters, pieces"
    )
    num_permutations: int = Field(256, ge=1, description="hash functions: the length of a signature")
    jaccard_threshold: float = Field(
        0.7, ge=0, le=1, description="similarity from which on texts are alike; used to choose the bands"
    )
    num_bands: int | None = Field(None, ge=1, description="bands of a signature; chosen by the threshold by default")
    num_rows_per_band: int | None = Field(
        None, ge=1, description="values in a band; chosen by the threshold unless both are given"
    )
    tokenizer_model: ModelPath | None = Field(
        None, description="file of the sentencepiece model; required for that tokenization"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DocumentMinhashDeduplicator:
        if self.tokenization == "sentencepiece" and self.tokenizer_model is None:
            raise ValueError("tokenization 'sentencepiece' needs tokenizer_model, the path of its model")
        if (
            self.num_bands
            and self.num_rows_per_band
            and self.num_bands * self.num_rows_per_band > self.num_permutations
        ):
            raise ValueError("num_bands times num_rows_per_band should be at most num_permutations")
        return self

    def bands(self) -> tuple[int, int]:
        """Number of bands and of values in each."""
        from raysandbox.ops.minhash import best_bands

        if self.num_bands is None or self.num_rows_per_band is None:
            return best_bands(self.jaccard_threshold, self.num_permutations)
        return self.num_bands, self.num_rows_per_band

    def load(self) -> Splitter | None:
        """Loads the tokenizer's model."""
        return load_splitter(self.tokenizer_model if self.tokenization == "sentencepiece" else None)

    def features(self, batch: Batch, state: Splitter | None) -> Mapping[str, pa.Array]:
        """Returns for each text a list of 64-bit numbers, one per band: equal where the bands are."""
        from raysandbox.ops.minhash import hash_functions
        from raysandbox.ops.shingle_kernels import minhash_bands

        bands, size = self.bands()
        factors, summands = hash_functions(self.num_permutations)
        tokens = self.tokens(batch, self.tokenization, state)
        hashes = minhash_bands(*tokens, factors[: bands * size], summands[: bands * size], bands)
        return {_BANDS: pa.FixedSizeListArray.from_arrays(pa.array(hashes.reshape(-1)), bands)}

    def originals(self, features: pa.Table, num_rows: int) -> np.ndarray:
        """Returns the first row of each row's group: rows that share a band, directly or through others."""
        from raysandbox.ops.union_find import originals_of_linked

        if num_rows == 0:
            return np.zeros(0, np.int64)
        column = features.column(_BANDS).combine_chunks()
        return originals_of_linked(column.flatten().to_numpy().reshape(num_rows, -1))
