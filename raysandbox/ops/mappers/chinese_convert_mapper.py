"""Converts between Simplified and Traditional Chinese and Japanese characters with OpenCC."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from raysandbox.core.registry import register
from raysandbox.ops import tables
from raysandbox.ops.base import Mapper
from raysandbox.ops.batch import Batch
from raysandbox.ops.text import code_points, replace_rows

__all__ = ["ChineseConvertMapper"]

Mode = Literal[
    "s2t", "t2s", "s2tw", "tw2s", "s2hk", "hk2s", "s2twp", "tw2sp", "t2tw", "tw2t", "hk2t", "t2hk", "t2jp", "jp2t"
]


@cache
def _ideographs() -> np.ndarray:
    """1 for the blocks of ideographs: every entry of OpenCC's dictionaries holds one."""
    table = np.zeros(tables.CODE_POINTS, np.uint8)
    for first, last in ((0x3007, 0x3007), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)):
        table[first : last + 1] = 1
    return table


@register("chinese_convert_mapper")
class ChineseConvertMapper(Mapper):
    """Converts Chinese texts from one script or regional standard to another."""

    example: ClassVar[Mapping[str, Any]] = {"mode": "t2s"}

    mode: Mode = Field(
        "s2t",
        description="from and to: s Simplified, t Traditional, tw Taiwan's standard (twp, sp: with words of the "
        "region), hk Hong Kong's standard, jp new Japanese characters",
    )

    def load(self) -> Any:
        """Returns OpenCC's converter."""
        import opencc

        return opencc.OpenCC(f"{self.mode}.json")

    def process(self, batch: Batch, state: Any) -> Batch:
        """Returns the batch with converted texts."""
        from raysandbox.ops import kernels

        points = code_points(batch)
        chinese = kernels.any_in(points.codes, points.starts, points.ends, _ideographs())
        rows = np.flatnonzero(chinese).tolist()
        return replace_rows(batch, rows, [_convert(points.text(row), state) for row in rows])


def _convert(text: str, converter: Any) -> str:
    # With some modes OpenCC drops what follows a null character.
    return "\0".join(map(converter.convert, text.split("\0")))
