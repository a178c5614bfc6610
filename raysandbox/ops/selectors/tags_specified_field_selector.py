"""Keeps rows whose value of a field is one of some tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops.batch import Batch
from raysandbox.ops.field_selector import FieldSelector
from raysandbox.ops.fields import scalar_list

__all__ = ["TagsSpecifiedFieldSelector"]


@register("tags_specified_field_selector")
class TagsSpecifiedFieldSelector(FieldSelector):
    """Keeps rows whose value of a field is one of the tags; upper and lower case differ.

    Without a field all rows stay.
    """

    example: ClassVar[Mapping[str, Any]] = {"field_key": "meta.source", "target_tags": ["book", "paper"]}

    target_tags: list[str | bool | int | float | None] = Field(description="values to keep")

    def selects(self) -> bool:
        """Whether there is a field."""
        return bool(self.field_key)

    def values(self, batch: Batch) -> pa.Array:
        """Whether each value is a tag; null for a missing one.

        Raises:
            RowFaults: some are lists or mappings.
        """
        tags = set(self.target_tags)
        found = [None if value is None else value in tags for value in scalar_list(batch, self.field_key)]
        return pa.array(found, pa.bool_())

    def select(self, values: pa.Array) -> np.ndarray:
        """Returns which rows have a tag; missing values are one when `target_tags` holds null."""
        return values.fill_null(None in self.target_tags).to_numpy(zero_copy_only=False)
