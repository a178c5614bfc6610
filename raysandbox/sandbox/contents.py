"""Whether a file holds a text, whatever it is packed in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["holds_text"]

_CHUNK = 4 << 20


def holds_text(path: Path, texts: Collection[str]) -> bool:
    """Whether a file holds one of the texts: as it is, or as JSON writes it.

    Looks into files of gzip and zstandard, and into the columns of Parquet files; other archives are
    taken as bytes.
    """
    forms = {text.encode() for text in texts} | {json.dumps(text)[1:-1].encode() for text in texts}
    overlap = max(map(len, forms)) - 1
    tail = b""
    for chunk in _chunks(path):
        window = tail + chunk
        if any(form in window for form in forms):
            return True
        tail = window[-overlap:] if overlap else b""
    return False


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"PAR1":
            yield from _columns(path)
            return
        if start[:2] == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                while chunk := unpacked.read(_CHUNK):
                    yield chunk
        elif start == b"\x28\xb5\x2f\xfd":
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as unpacked:
                while chunk := unpacked.read(_CHUNK):
                    yield chunk
        else:
            while chunk := file.read(_CHUNK):
                yield chunk


def _columns(path: Path) -> Iterator[bytes]:
    """The buffers of a Parquet file's columns: the values of texts stand in them one after the other."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(batch_size=4096):
        for column in batch.columns:
            for buffer in column.buffers():
                if buffer is not None:
                    yield buffer.to_pybytes()
