"""The statistics store: what operators computed for pieces of input, shared by all runs.

A piece of input (a unit) has a folder, named by the digest of its content; each operator has a
Parquet file in it, named by the operator's key and a checksum of the file. An entry whose content
does not match its name is removed and counts as absent.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysandbox.core.disk import dispensable

__all__ = ["StatisticsStore", "UnitFolder"]

LIMIT_BYTES = 20 << 30
_KEY = 40  # characters of a key in a file's name


@dataclass(frozen=True)
class StatisticsStore:
    """The folder of all entries."""

    folder: Path

    def unit(self, digest: str) -> UnitFolder:
        """The entries of one unit."""
        return UnitFolder(self.folder / digest[:2] / digest[:_KEY])

    def prune(self, limit: int = LIMIT_BYTES) -> None:
        """Removes what was not used for the longest time until the rest takes at most `limit` bytes."""
        found: list[tuple[os.stat_result, Path]] = []
        for entry in self.folder.glob("*/*/*.parquet"):
            with suppress(FileNotFoundError):  # replaced or pruned by another run
                found.append((entry.stat(), entry))
        excess = sum(stat.st_size for stat, _ in found) - limit
        for stat, entry in sorted(found, key=lambda item: item[0].st_mtime):
            if excess <= 0:
                return
            with suppress(OSError):  # another run may prune as well, or nobody may write here
                entry.unlink()
            excess -= stat.st_size


class UnitFolder:
    """The entries of one unit; looked up once, when first asked.

    Attributes:
        damaged: number of entries that were removed because their content had changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] | None = None
        self.damaged = 0

    def has(self, key: str) -> bool:
        """Whether there is an entry, good or not."""
        return key[:_KEY] in self._listing()

    def keys(self) -> list[str]:
        """The keys of all entries, good or not, as far as names hold them."""
        return list(self._listing())

    def read(self, key: str) -> pa.Table | None:
        """The entry of an operator, None when there is none or it is damaged."""
        path = self._listing().get(key[:_KEY])
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:  # pruned by another run, or one may not read it
            return None
        if _checksum(content) != path.stem.rpartition("-")[2]:
            self.damaged += 1
            with suppress(OSError):  # of others, who may write here and we may not
                path.unlink(missing_ok=True)
            del self._listing()[key[:_KEY]]
            return None
        with suppress(OSError):  # pruned just now, or of others
            os.utime(path)
        return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)

    def write(self, key: str, table: pa.Table) -> bool:
        """Makes or replaces an entry; returns whether the disk took it."""
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            use_compliant_nested_type=False,  # else lists come back with another name of their items
        )
        content = sink.getvalue().to_pybytes()
        path = self._folder / f"{key[:_KEY]}-{_checksum(content)}.parquet"
        old = self._listing().get(key[:_KEY])
        temporary = self._folder / f".{uuid.uuid4().hex}"
        with dispensable("a store of results", path):
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(content)
                os.replace(temporary, path)  # not flushed to disk: the checksum tells a torn entry
                if old is not None and old != path:
                    old.unlink(missing_ok=True)
            except OSError:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            self._listing()[key[:_KEY]] = path
            return True
        return False

    def remove(self, key: str) -> None:
        """Removes an entry, if there is one."""
        path = self._listing().pop(key[:_KEY], None)
        if path is not None:
            with suppress(OSError):  # gone, or nobody may write here
                path.unlink()

    def _listing(self) -> dict[str, Path]:
        if self._files is None:
            self._files = dict(_entries(self._folder))
        return self._files


def _entries(folder: Path) -> Mapping[str, Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".parquet"))
    except OSError:  # none there, or one may not read it
        return {}
    return {name.partition("-")[0]: folder / name for name in names}


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
