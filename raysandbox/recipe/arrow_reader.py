"""Arrow files: the IPC file format, and the stream format in which the `datasets` package saves data sets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from raysandbox.core.names import is_remote
from raysandbox.recipe.remote import open_path

__all__ = ["batch_sizes", "read_batches"]

_FILE_FORMAT = b"ARROW1"


def batch_sizes(path: str) -> list[tuple[int, int]]:
    """Rows and bytes of each record batch; a memory-mapped file is not read for it."""
    return [(batch.num_rows, batch.nbytes) for batch in read_batches(path, 0, None)]


def read_batches(path: str, start: int, end: int | None) -> Iterator[pa.RecordBatch]:
    """Yields the record batches `start` to before `end` of a file.

    Raises:
        pyarrow.ArrowInvalid: the file is neither of the two formats.
    """
    with _opened(path) as (source, is_file):
        if is_file:
            with ipc.open_file(source) as reader:
                for index in range(start, reader.num_record_batches if end is None else end):
                    yield reader.get_batch(index)
        else:
            with ipc.open_stream(source) as reader:
                for index, batch in enumerate(reader):
                    if end is not None and index >= end:
                        return
                    if index >= start:
                        yield batch


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[Any, bool]]:
    """The open file, and whether it is of the file format."""
    with open_path(path) if is_remote(path) else pa.memory_map(path) as source:
        is_file = source.read(len(_FILE_FORMAT)) == _FILE_FORMAT
        source.seek(0)
        yield source, is_file
