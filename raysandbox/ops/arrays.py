"""Arrow numbers as NumPy arrays and back, by their buffers.

`pa.array` and `to_numpy` import pandas wherever it is installed, which takes a quarter of a second:
as long as everything else together when a run finds its statistics stored.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["arrow_of", "numpy_of"]


def numpy_of(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The values; numbers without nulls are not copied, a null becomes NaN or None."""
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    if isinstance(values, pa.ChunkedArray) or values.null_count or not _plain(values.type):
        return values.to_numpy(zero_copy_only=False)
    data = values.buffers()[1]
    kind = values.type.to_pandas_dtype()  # a type of NumPy, in spite of its name
    if data is None:
        return np.zeros(0, kind)
    return np.frombuffer(data, kind)[values.offset : values.offset + len(values)]


def _plain(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def arrow_of(values: np.ndarray) -> pa.Array:
    """An Arrow array of int64 or float64 numbers, not copied."""
    kind = {"int64": pa.int64(), "float64": pa.float64()}[values.dtype.name]
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
