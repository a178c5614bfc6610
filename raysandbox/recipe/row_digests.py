"""Digests of rows: of a line's bytes, or of the texts in some columns.

They are MurmurHash3 of 128 bits: fast, and far too long for two of a billion rows to meet by chance
(a probability of 10^-21), but no guard against texts that somebody makes to collide.

Beside an output of plain JSON lines a hidden file, the sidecar, holds one digest per line, so that who
looks rows up by their lines need not read the output. It belongs to the file that has the stamp that it
names, or is a hard link to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysandbox.core.files import atomic_path
from raysandbox.core.keys import file_stamp
from raysandbox.ops.arrays import numpy_of
from raysandbox.ops.batch import JSON_TEXT

__all__ = ["RowDigests", "digest_lines", "read_digests", "sidecar_of", "text_digests", "write_digests"]

_COLUMNS = ("high", "low", "size")
_STAMP = b"file"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class RowDigests:
    """Digests of lines.

    Attributes:
        digests: uint64 of shape (rows, 2).
        sizes: bytes of each line with its end, int64 of shape (rows,).
    """

    digests: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of_lines(cls, lines: Sequence[bytes]) -> RowDigests:
        """The digests of lines."""
        return cls(_digests(lines), np.fromiter(map(len, lines), np.int64, len(lines)))

    @classmethod
    def joined(cls, parts: Sequence[RowDigests]) -> RowDigests:
        """One after the other."""
        if not parts:
            return cls(np.empty((0, 2), np.uint64), np.empty(0, np.int64))
        return cls(np.concatenate([part.digests for part in parts]), np.concatenate([part.sizes for part in parts]))

    def __len__(self) -> int:
        return len(self.sizes)

    def select(self, keep: np.ndarray) -> RowDigests:
        """Those of the rows where `keep` (bool) holds."""
        return RowDigests(self.digests[keep], self.sizes[keep])


def _digests(contents: Iterable[bytes | memoryview]) -> np.ndarray:
    """Digests as uint64 of shape (contents, 2)."""
    joined = b"".join(map(mmh3.mmh3_x64_128_digest, contents))
    return np.frombuffer(joined, "<u8").reshape(-1, 2).astype(np.uint64, copy=False)


def text_digests(table: pa.Table, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Digests of what the rows hold in some columns of text.

    Args:
        table: the rows.
        columns: at least one.

    Returns:
        uint64 of shape (rows, 2), and which rows hold text in all of the columns, bool of shape (rows,): the
        digests of others mean nothing. None when a column is missing, or is no text in all rows: the type that
        Arrow gives its values then depends on the rows beside them.
    """
    present = np.ones(table.num_rows, dtype=bool)
    found: list[np.ndarray] = []
    for name in columns:
        if name not in table.column_names or not _is_text(table.schema.field(name)):
            return None
        column = table.column(name)
        present &= column.is_valid().to_numpy()
        found.append(np.concatenate([_text_digests(chunk) for chunk in column.chunks] or [_digests([])]))
    if len(found) == 1:
        return found[0], present
    return _digests(row.tobytes() for row in np.concatenate(found, axis=1)), present


def _is_text(field: pa.Field) -> bool:
    kind = field.type
    return (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and field.metadata != JSON_TEXT


def _text_digests(texts: pa.Array) -> np.ndarray:
    """Digests of texts' UTF-8 bytes, taken where they lie; of nulls that of no text."""
    if not len(texts):
        return _digests([])
    _, offsets, data = texts.buffers()
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    bounds = np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1].tolist()
    content = memoryview(data or b"")
    return _digests(content[start:end] for start, end in itertools.pairwise(bounds))


def sidecar_of(path: Path) -> Path:
    """Where the digests of an output's lines stand; hidden, so that no folder's data holds them."""
    return path.with_name(f".{path.name}.rows")


def write_digests(path: Path, rows: RowDigests, target: Path) -> None:
    """Writes the digests of a file's lines to `target`."""
    _write(rows, target, _stamp(path))


def read_digests(path: Path, target: Path) -> RowDigests | None:
    """The digests of a file's lines that stand in `target`; None when it has none, or those of another content."""
    try:
        with pq.ParquetFile(target, page_checksum_verification=True) as stored:
            if (stored.schema_arrow.metadata or {}).get(_STAMP) != _stamp(path):
                return None
            table = stored.read(use_threads=False)
            high, low, sizes = (numpy_of(table.column(name)) for name in _COLUMNS)
    except (OSError, KeyError, pa.ArrowException):  # absent or damaged: the file itself tells all
        return None
    return RowDigests(np.stack((high, low), axis=1), sizes)


def digest_lines(path: Path, target: Path) -> None:
    """Reads a file and writes the digests of its lines to `target`; not if a line is blank, which is no row."""
    stamp = _stamp(path)
    parts: list[RowDigests] = []
    with path.open("rb") as stream:
        while lines := stream.readlines(_READ_BYTES):
            if any(map(bytes.isspace, lines)):
                return
            parts.append(RowDigests.of_lines(lines))
    if _stamp(path) == stamp:
        _write(RowDigests.joined(parts), target, stamp)


def _write(rows: RowDigests, target: Path, stamp: bytes) -> None:
    values = (pa.array(rows.digests[:, 0]), pa.array(rows.digests[:, 1]), pa.array(rows.sizes))
    schema = pa.schema([(name, column.type) for name, column in zip(_COLUMNS, values, strict=True)])
    table = pa.Table.from_arrays(list(values), schema=schema.with_metadata({_STAMP: stamp}))
    with atomic_path(target) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", compression_level=1, use_dictionary=False, write_page_checksum=True
        )


def _stamp(path: Path) -> bytes:
    return " ".join(map(str, file_stamp(path).values())).encode()
