"""Keeps rows by how often their value of a field occurs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from raysandbox.core.registry import register
from raysandbox.ops.batch import Batch
from raysandbox.ops.field_selector import TopSelector
from raysandbox.ops.fields import scalar_list

__all__ = ["FrequencySpecifiedFieldSelector"]


@register("frequency_specified_field_selector")
class FrequencySpecifiedFieldSelector(TopSelector):
    """Keeps all rows of the most frequent values of a field; a missing value is a value too.

    The bounds count distinct values. Without a field or a bound all rows stay.
    """

    example: ClassVar[Mapping[str, Any]] = {"field_key": "meta.source", "topk": 10}

    def values(self, batch: Batch) -> pa.Array:
        """The values as JSON, so that those of all rows have one type.

        Raises:
            RowFaults: some are lists or mappings.
        """
        return pa.array([_name(value) for value in scalar_list(batch, self.field_key)], pa.large_string())

    def select(self, values: pa.Array) -> np.ndarray:
        """Returns which rows have one of the values; of equally frequent ones the first stay."""
        codes = values.dictionary_encode(null_encoding="encode").indices.to_numpy()
        counts = np.bincount(codes)
        ranked = np.argsort(-counts if self.reverse else counts, kind="stable")
        return np.isin(codes, ranked[: self.count(len(counts))])


def _name(value: Any) -> str | None:
    """The value as JSON, the same for 1, 1.0 and true, as Python compares them."""
    if value is None:
        return None
    if isinstance(value, bool | float) and float(value).is_integer():
        value = int(value)
    return orjson.dumps(value).decode()
