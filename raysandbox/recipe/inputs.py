"""Which files a recipe reads, and in what pieces: planned without reading their rows."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysandbox.core.errors import ConfigError, Problem
from raysandbox.core.names import is_remote, local_name
from raysandbox.recipe.remote import (
    DAMAGED,
    Listing,
    RemoteFile,
    compression_of,
    list_remote,
    open_path,
    open_unpacked,
    unpacked_ratio,
)

__all__ = ["FORMATS", "InputFile", "ReadTask", "Span", "find_files", "plan_reads", "shard_pattern", "split_name"]

# fmt: off
_TEXT_SUFFIXES = (
    ".asm", ".bash", ".bat", ".c", ".c++", ".cc", ".cmake", ".cmd", ".command", ".cpp", ".cs", ".css", ".dockerfile",
    ".f", ".f03", ".f08", ".f77", ".f90", ".f95", ".for", ".fpp", ".go", ".h", ".h++", ".hh", ".hpp", ".hs", ".html",
    ".java", ".jl", ".js", ".lua", ".m", ".markdown", ".md", ".perl", ".php", ".php3", ".php4", ".php5", ".phps",
    ".phpt", ".pl", ".pm", ".pod", ".ps1", ".psd1", ".psm1", ".py", ".rb", ".rs", ".rst", ".scala", ".sh", ".smali",
    ".sql", ".tex", ".ts", ".tsx", ".txt", ".vb", ".xml", ".zsh",
)
# fmt: on
# Suffix → format. Plain text is one row per file, as Data-Juicer reads it.
FORMATS = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
    **dict.fromkeys(_TEXT_SUFFIXES, "text"),
}
_DOCUMENTS = (".docx", ".pdf")
_UNPACKED = 4  # times the compressed size, on average of natural text
# A packed file is unpacked from its start for each of its pieces: more of them cost more than they gain.
_MOST_PACKED_PIECES = 8


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Attributes:
        path: absolute path or URL.
        format: a value of `FORMATS`.
        compression: None, "gzip" or "zstd".
        size: bytes as stored.
        folder: what relative media paths in its rows start from.
        stamp: names the content of a file at a URL; "" for local files, whose content is looked at.
        seekable: whether pieces of it can be read.
    """

    path: str
    format: str
    compression: str | None
    size: int
    folder: str
    stamp: str = ""
    seekable: bool = True

    @property
    def weight(self) -> int:
        """Bytes of content, estimated for compressed files."""
        return self.size * (_UNPACKED if self.compression else 1)


@dataclass(frozen=True)
class Span:
    """A piece of a file that one worker reads.

    Attributes:
        file: the file.
        start: first byte (of the unpacked content) of a JSONL span, first row group of a Parquet span,
            first record batch of an Arrow span, else 0.
        end: the byte, row group or batch after the last; None for all to the end.
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
    """The files of a path, folder, glob or URL, in sorted order, and warnings about what is left out.

    Args:
        path: file, folder (read recursively, hidden files skipped) or glob, local or with a protocol;
            also an output that was written in shards.
        suffixes: suffixes to read in folders; empty for every known one. Other suffixes than the
            known ones are read as plain text.

    Raises:
        ConfigError: there is nothing, or nothing that can be read.
    """
    root = path if is_remote(path) else os.path.abspath(os.path.expanduser(local_name(path)))
    found = _listing(root)
    if not found.files and found.kind == "matches":
        found = _listing(shard_pattern(root))
    if found.kind == "file":
        return [_file(found.files[0], None, suffixes)], []
    if not found.files and found.kind == "matches":
        raise _no_input(path, "no such file, folder or match", "correct the path")
    wanted = [file for file in found.files if _format(file.path, suffixes) is not None]
    if suffixes:
        wanted = [file for file in wanted if any(file.path.lower().endswith(suffix) for suffix in suffixes)]
    files = [_file(file, root if found.kind == "folder" else None, suffixes) for file in wanted]
    if not files:
        known = ", ".join(sorted(suffixes or FORMATS))
        raise _no_input(path, f"holds no file with a suffix of: {known}", "set suffixes or the path")
    data = [file for file in files if file.format != "text"]
    if suffixes or not data or len(data) == len(files):
        return files, []
    left_out = len(files) - len(data)
    return data, [f"{path}: {left_out} text files beside data files are not read; name them in suffixes to read them"]


def split_name(name: str) -> tuple[str, str]:
    """Stem and suffix of an output's name, ("data.v1", ".jsonl.zst"): the numbers of shards stand between them."""
    stem = os.path.splitext(os.path.splitext(name)[0] if compression_of(name) else name)[0]
    return stem, name[len(stem) :]


def shard_pattern(path: str, total: str = "[0-9]*") -> str:
    """The glob of the shards that may stand for an output: `out-[0-9]*-of-[0-9]*.jsonl` for `out.jsonl`.

    Args:
        path: the output; no glob, whatever signs are in it.
        total: how many shards there are, with the zeros that it is written with; any number by default.
    """
    folder, slash, name = path.rpartition("/")
    stem, suffix = map(glob.escape, split_name(name))
    return f"{glob.escape(folder)}{slash}{stem}-[0-9]*-of-{total}{suffix}"


def _listing(path: str) -> Listing:
    return list_remote(path) if is_remote(path) else _list_local(path)


def _list_local(root: str) -> Listing:
    if os.path.isfile(root):
        return Listing("file", (_described(root),))
    if os.path.isdir(root):
        return Listing("folder", tuple(map(_described, _walk(root))))
    matches = sorted(glob.glob(root, recursive=True))
    names = [name for match in matches for name in (_walk(match) if os.path.isdir(match) else [match])]
    return Listing("matches", tuple(map(_described, names)))


def _described(path: str) -> RemoteFile:
    return RemoteFile(path, os.path.getsize(path), "")


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(names) if name[0] not in "._")


def _file(found: RemoteFile, folder: str | None, suffixes: frozenset[str]) -> InputFile:
    format_and_compression = _format(found.path, suffixes)
    if format_and_compression is None:
        if found.path.lower().endswith(_DOCUMENTS):
            raise _no_input(found.path, "documents of this kind are not read in this version", "convert it to text")
        raise _no_input(found.path, "no reader for this suffix", f"known: {', '.join(FORMATS)}, also with .gz or .zst")
    folder = folder or found.path.rpartition("/")[0] or "/"
    return InputFile(found.path, *format_and_compression, found.size, folder, found.stamp, found.seekable)


def _format(path: str, suffixes: frozenset[str]) -> tuple[str, str | None] | None:
    name = _file_name(path)
    compression = compression_of(name)
    stem, last = os.path.splitext(os.path.splitext(name)[0] if compression else name)
    format_name = FORMATS.get(last, "text" if last in suffixes and stem else None)
    return None if format_name is None else (format_name, compression)


def _file_name(path: str) -> str:
    """The last part of a path in lower case, without the query of a web address."""
    return (path.partition("?")[0] if is_remote(path) else path).rpartition("/")[2].lower()


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
        if file.format == "json" and file.weight > block_bytes and not _is_list(file):
            file = replace(file, format="jsonl")
        if file.format == "jsonl" and file.compression is None and file.seekable:
            yield from _cut(file, max(1, round(file.size / block_bytes)), file.size, file.size)
        elif file.format == "jsonl" and file.compression is not None and not is_remote(file.path):
            size = round(file.size * unpacked_ratio(file.path, file.compression))
            yield from _cut(file, max(1, min(_MOST_PACKED_PIECES, size // (2 * block_bytes))), size, None)
        elif file.format == "parquet" and file.compression is None and file.seekable:
            yield from _grouped(file, _row_groups(file), block_bytes)
        elif file.format == "arrow" and not is_remote(file.path):
            yield from _grouped(file, _arrow_batches(file), block_bytes)
        else:
            yield Span(file, size=file.weight)


def _cut(file: InputFile, pieces: int, size: int, end: int | None) -> Iterator[Span]:
    """Equal pieces of `size` bytes of content; the last one goes to `end`."""
    edges = [size * index // pieces for index in range(pieces + 1)]
    for start, stop in itertools.pairwise(edges):
        yield Span(file, start, end if stop == size else stop, stop - start)


def _is_list(file: InputFile) -> bool:
    """Whether a .json file is one list, which is read as a whole, not an object per line."""
    try:
        with open_unpacked(file.path, file.compression) as stream:
            return stream.read(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in {b"[", b""}
    except DAMAGED:
        return True  # whoever reads it says what is wrong


def _grouped(file: InputFile, sizes: Iterable[int], block_bytes: int) -> Iterator[Span]:
    """Runs of row groups or record batches of these sizes, in bytes."""
    start, size, end = 0, 0, 0
    for end, bytes_of_group in enumerate(sizes, 1):
        size += bytes_of_group
        if size >= block_bytes:
            yield Span(file, start, end, size)
            start, size = end, 0
    if end > start:
        yield Span(file, start, end, size)


def _row_groups(file: InputFile) -> list[int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_path(file.path) as stream:
            metadata = pq.read_metadata(stream)
    except pa.ArrowInvalid as error:
        raise _no_input(file.path, f"not a Parquet file: {error}", "write it again") from None
    return [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]


def _arrow_batches(file: InputFile) -> list[int]:
    import pyarrow as pa

    from raysandbox.recipe.arrow_reader import batch_sizes

    try:
        return [size for _, size in batch_sizes(file.path)]
    except pa.ArrowInvalid as error:
        raise _no_input(file.path, f"not an Arrow file: {error}", "write it again") from None
