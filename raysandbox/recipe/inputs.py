"""Which files a recipe reads, and in what pieces: planned without reading their rows."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raysandbox.core.errors import ConfigError, Problem

__all__ = ["FORMATS", "InputFile", "ReadTask", "Span", "find_files", "plan_reads"]

# Suffix → format. Plain text is one row per file, as Data-Juicer reads it.
FORMATS = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    **dict.fromkeys((".txt", ".md", ".tex", ".rst", ".html", ".xml"), "text"),
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_UNPACKED = 4  # times the compressed size, on average of natural text


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Attributes:
        path: absolute path.
        format: a value of `FORMATS`.
        compression: None, "gzip" or "zstd".
        size: bytes on disk.
        folder: what relative media paths in its rows start from.
    """

    path: str
    format: str
    compression: str | None
    size: int
    folder: str

    @property
    def weight(self) -> int:
        """Bytes of content, estimated for compressed files."""
        return self.size * (_UNPACKED if self.compression else 1)


@dataclass(frozen=True)
class Span:
    """A piece of a file that one worker reads.

    Attributes:
        file: the file.
        start: first byte of a JSONL span, first row group of a Parquet span, else 0.
        end: the byte or row group after the last; None for the whole file.
        size: bytes of content, about.
        picked: which of the span's rows a mix takes (bool, one per row), None for all.
    """

    file: InputFile
    start: int = 0
    end: int | None = None
    size: int = 0
    picked: np.ndarray | None = None


@dataclass(frozen=True)
class ReadTask:
    """What one unit of work reads: one span of a large file, or several small files."""

    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """Bytes of content, about."""
        return sum(span.size for span in self.spans)


def find_files(path: str, suffixes: frozenset[str]) -> tuple[list[InputFile], list[str]]:
    """The files of a path, folder or glob, in sorted order, and warnings about what is left out.

    Args:
        path: file, folder (read recursively, hidden files skipped) or glob.
        suffixes: suffixes to read in folders; empty for every known one. Other suffixes than the
            known ones are read as plain text.

    Raises:
        ConfigError: there is nothing, or nothing that can be read.
    """
    root = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(root):
        return [_file(root, os.path.dirname(root), suffixes)], []
    names = list(_walk(root)) if os.path.isdir(root) else _matches(root)
    if not names and not os.path.isdir(root):
        raise _no_input(path, "no such file, folder or match", "correct the path")
    wanted = [name for name in names if _format(name, suffixes) is not None]
    if suffixes:
        wanted = [name for name in wanted if any(name.lower().endswith(suffix) for suffix in suffixes)]
    folder = root if os.path.isdir(root) else None
    files = [_file(name, folder or os.path.dirname(name), suffixes) for name in wanted]
    if not files:
        known = ", ".join(sorted(suffixes or FORMATS))
        raise _no_input(path, f"holds no file with a suffix of: {known}", "set suffixes or the path")
    data = [file for file in files if file.format != "text"]
    if suffixes or not data or len(data) == len(files):
        return files, []
    left_out = len(files) - len(data)
    return data, [f"{path}: {left_out} text files beside data files are not read; name them in suffixes to read them"]


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(names) if name[0] not in "._")


def _matches(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern, recursive=True))
    return [name for match in found for name in (_walk(match) if os.path.isdir(match) else [match])]


def _file(path: str, folder: str, suffixes: frozenset[str]) -> InputFile:
    format_and_compression = _format(path, suffixes)
    if format_and_compression is None:
        raise _no_input(path, "no reader for this suffix", f"known: {', '.join(FORMATS)}, also with .gz or .zst")
    return InputFile(path, *format_and_compression, os.path.getsize(path), folder)


def _format(path: str, suffixes: frozenset[str]) -> tuple[str, str | None] | None:
    name = path.lower()
    compression = next((kind for suffix, kind in _COMPRESSIONS.items() if name.endswith(suffix)), None)
    stem, last = os.path.splitext(os.path.splitext(name)[0] if compression else name)
    format_name = FORMATS.get(last, "text" if last in suffixes and stem else None)
    return None if format_name is None else (format_name, compression)


def _no_input(path: str, message: str, fix: str) -> ConfigError:
    return ConfigError([Problem(None, None, "dataset_path", f"{path}: {message}", fix)])


def plan_reads(files: Sequence[InputFile], block_bytes: int) -> list[ReadTask]:
    """Cuts files into pieces of about `block_bytes`; small neighbours share a task."""
    tasks: list[ReadTask] = []
    spans: list[Span] = []
    for span in _spans(files, block_bytes):
        if spans and sum(item.size for item in spans) + span.size > block_bytes:
            tasks.append(ReadTask(tuple(spans)))
            spans = []
        spans.append(span)
    return [*tasks, ReadTask(tuple(spans))] if spans else tasks


def _spans(files: Iterable[InputFile], block_bytes: int) -> Iterator[Span]:
    for file in files:
        if file.size == 0:
            continue
        if file.format == "jsonl" and file.compression is None:
            count = max(1, round(file.size / block_bytes))
            edges = [file.size * index // count for index in range(count + 1)]
            for start, end in itertools.pairwise(edges):
                yield Span(file, start, end, end - start)
        elif file.format == "parquet" and file.compression is None:
            yield from _row_groups(file, block_bytes)
        else:
            yield Span(file, size=file.weight)


def _row_groups(file: InputFile, block_bytes: int) -> Iterator[Span]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file.path)
    except pa.ArrowInvalid as error:
        raise _no_input(file.path, f"not a Parquet file: {error}", "write it again") from None
    start, size = 0, 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= block_bytes or group == metadata.num_row_groups - 1:
            yield Span(file, start, group + 1, size)
            start, size = group + 1, 0
