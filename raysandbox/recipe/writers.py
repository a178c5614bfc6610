"""Joins the parts that units left into output files, in input order, as a stream."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, cast

import zstandard

from raysandbox.core.files import atomic_path, remove
from raysandbox.recipe.inputs import shard_pattern, split_name
from raysandbox.recipe.parts import UnitReport
from raysandbox.recipe.remote import list_remote, remove_remote, upload
from raysandbox.recipe.row_digests import RowDigests, sidecar_of, write_digests
from raysandbox.recipe.table_writers import common_schema, write_tables

__all__ = ["Target", "shard_sizes", "write_output"]

_TABLES = ("parquet", "csv", "tsv")
_CHUNK = 1 << 20


class Target:
    """An output file or its shards.

    Args:
        path: `export_path`; for a URL where its files are made before they are sent.
        format: a value of `schema.EXPORT_FORMATS`.
        suffix: what the path ends in, without the first dot.
        shard_bytes: bytes per file; 0 for one file.
        url: folder of the URL that the files are sent to; "" for a local output.
    """

    def __init__(self, path: Path, format: str, suffix: str, shard_bytes: int = 0, url: str = "") -> None:
        self.path = path
        self.format = format
        self.suffix = suffix
        self._shard_bytes = shard_bytes
        self._url = url
        self._stem, self._end = split_name(path.name)

    @property
    def sink(self) -> Literal["tables", "lines"]:
        """What units should leave for it."""
        return "tables" if self.format in _TABLES else "lines"

    @property
    def is_plain(self) -> bool:
        """Whether it is one file of JSON lines on this machine, not compressed."""
        return self.format == "jsonl" and self.suffix == "jsonl" and self._shard_bytes <= 0 and not self._url

    def shards(self, rows: int, size: int) -> list[tuple[Path, int]]:
        """The files to write and the rows of each, named as Data-Juicer does: stem-00-of-12.jsonl."""
        if self._shard_bytes <= 0:
            return [(self.path, rows)]
        counts = shard_sizes(rows, size // self._shard_bytes + 1)
        width = len(str(len(counts))) + 1
        names = [
            f"{self._stem}-{index:0{width}d}-of-{len(counts):0{width}d}{self._end}" for index in range(len(counts))
        ]
        return [(self.path.with_name(name), count) for name, count in zip(names, counts, strict=True)]

    @contextmanager
    def place(self, path: Path) -> Iterator[Path]:
        """Yields where to write one of the files, which then appears whole in its place."""
        with atomic_path(path) as temporary:
            yield temporary
        if self._url:
            upload(path, self._where(path.name))
            remove(path)

    def result(self, shards: Sequence[tuple[Path, int]]) -> str:
        """What a later job reads: the file, or the glob of the shards just written."""
        if self._shard_bytes <= 0:
            return self._where(self.path.name)
        total = shards[0][0].name.removesuffix(self._end).rpartition("-")[2]
        return shard_pattern(self._where(self.path.name), total)

    def remove_stale(self, shards: Sequence[tuple[Path, int]]) -> None:
        """Removes what an earlier run left and would now be read together with these, or instead of them."""
        if self._shard_bytes <= 0:
            return
        written = {path.name for path, _ in shards}
        old = re.compile(rf"{re.escape(self._stem)}-\d+-of-\d+{re.escape(self._end)}")
        for name in self._names_beside():
            if (old.fullmatch(name) or name == self.path.name) and name not in written:
                if self._url:
                    remove_remote(self._where(name))
                else:
                    self.path.with_name(name).unlink()

    def _names_beside(self) -> list[str]:
        if not self._url:
            return [path.name for path in self.path.parent.iterdir()]
        whole = self._where(self.path.name)
        found = (*list_remote(whole).files, *list_remote(shard_pattern(whole)).files)
        return [file.path.rpartition("/")[2] for file in found]

    def _where(self, name: str) -> str:
        return f"{self._url}/{name}" if self._url else str(self.path.with_name(name))


def shard_sizes(rows: int, shards: int) -> list[int]:
    """Rows per shard: as equal as can be, the longer ones first; at least one shard."""
    shards = max(1, min(shards, rows))
    return [rows // shards + (index < rows % shards) for index in range(shards)]


def write_output(target: Target, reports: Sequence[UnitReport]) -> str:
    """Writes the output and returns its path; every file appears whole or not at all.

    Args:
        target: where and how.
        reports: the units' reports, in input order.
    """
    parts = [part for report in reports for part in report.parts]
    size = sum(report.size for report in reports)
    shards = target.shards(sum(report.rows_out for report in reports), size)
    if target.format in _TABLES:
        schema = common_schema(schema for report in reports for schema in report.schemas)
        write_tables(target.format, shards, parts, schema, size, target.place)
    else:
        _write_json(target, shards, parts)
    target.remove_stale(shards)
    _write_digests(target, reports)
    return target.result(shards)


def _write_digests(target: Target, reports: Sequence[UnitReport]) -> None:
    """Leaves the lines' digests beside an output of plain lines; those of an earlier output go."""
    rows = RowDigests.joined([lines for report in reports for lines in report.lines])
    if target.is_plain and len(rows) == sum(report.rows_out for report in reports):
        write_digests(target.path, rows, sidecar_of(target.path))
    else:
        remove(sidecar_of(target.path))


def _write_json(target: Target, shards: Sequence[tuple[Path, int]], parts: Sequence[Path]) -> None:
    if len(shards) == 1 and target.format == "jsonl":
        with target.place(shards[0][0]) as temporary, _open(temporary, target.suffix) as output:
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, output, _CHUNK)
        return
    lines = _lines(parts)
    for path, count in shards:
        with target.place(path) as temporary, _open(temporary, target.suffix) as output:
            if target.format == "jsonl":
                for _ in range(count):
                    output.write(next(lines))
            else:
                _write_list(output, lines, count)


def _write_list(output: IO[bytes], lines: Iterator[bytes], count: int) -> None:
    output.write(b"[")
    for index in range(count):
        output.write((b",\n" if index else b"\n") + next(lines).rstrip(b"\n"))
    output.write(b"\n]\n")


def _lines(parts: Iterable[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as stream:
            yield from stream


@contextmanager
def _open(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if suffix.endswith(".gz"):  # without the time of writing: equal rows give equal bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                yield cast("IO[bytes]", packed)
        elif suffix.endswith(".zst"):
            with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield file
