"""Views of a batch's texts that operators share, and edits of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysandbox.ops import tables
from raysandbox.ops.batch import Batch

__all__ = [
    "CodePoints",
    "Words",
    "code_points",
    "edit",
    "keep_words",
    "leave_out",
    "line_lengths",
    "lowered_points",
    "plain_words",
    "replace_characters",
    "replace_rows",
    "share_in",
    "text_array",
    "words",
]


@dataclass(frozen=True)
class CodePoints:
    """The code points of all rows in one array.

    Attributes:
        codes: uint32; rows that were dropped or replaced may leave gaps.
        starts: int64, where each row starts.
        ends: int64, where each row ends.
    """

    codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of code points of each row (int64)."""
        return self.ends - self.starts

    def select_rows(self, keep: np.ndarray) -> CodePoints:
        """The rows where `keep` holds; the code points stay where they are."""
        return CodePoints(self.codes, self.starts[keep], self.ends[keep])

    def slice(self, start: int, end: int) -> str:
        """The code points from `start` to `end` as a string."""
        return self.codes[start:end].tobytes().decode("utf-32-le")

    def text(self, row: int) -> str:
        """A row as a string."""
        return self.slice(self.starts[row], self.ends[row])

    def replace(self, rows: Sequence[int], texts: Sequence[str]) -> CodePoints:
        """Other texts for some rows."""
        new = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        bounds = np.concatenate(([0], np.cumsum([len(text) for text in texts]))) + self.codes.size
        starts, ends = self.starts.copy(), self.ends.copy()
        starts[rows], ends[rows] = bounds[:-1], bounds[1:]
        return CodePoints(np.concatenate((self.codes, new)), starts, ends)


@dataclass(frozen=True)
class Words:
    """The words of all rows: split at spaces, tabs and newlines, stripped of special characters.

    Attributes:
        codes: uint32, the code points that the spans refer to.
        starts: int64, where each word starts.
        ends: int64, where each word ends.
        firsts: int64, index of each row's first word.
        lasts: int64, index after each row's last word.
    """

    codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    firsts: np.ndarray
    lasts: np.ndarray

    def select_rows(self, keep: np.ndarray) -> Words:
        """The words of the rows where `keep` holds."""
        return Words(self.codes, self.starts, self.ends, self.firsts[keep], self.lasts[keep])


def text_array(batch: Batch) -> pa.LargeStringArray:
    """The text column as one array with 64-bit offsets."""
    column = batch.table.column(batch.keys.text).cast(pa.large_string())
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays([*column.chunks, pa.array([], column.type)])


def code_points(batch: Batch) -> CodePoints:
    """The code points of the batch's texts."""
    return batch.view("code_points", lambda: _decode(text_array(batch)))


def _decode(texts: pa.LargeStringArray) -> CodePoints:
    from raysandbox.ops import kernels

    _, offsets, data = texts.buffers()
    bounds = np.zeros(1, np.int64)
    if len(texts):
        bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    codes, bounds = kernels.decode(content, bounds)
    return CodePoints(codes, bounds[:-1].copy(), bounds[1:].copy())


def share_in(batch: Batch, table: np.ndarray) -> pa.Array:
    """Share of each row's code points for which the uint8 `table` is 1 (float64); 0 for an empty text."""
    from raysandbox.ops import kernels

    points = code_points(batch)
    counts = kernels.count_in(points.codes, points.starts, points.ends, table)
    return pa.array(counts / np.maximum(points.lengths, 1))


def line_lengths(batch: Batch) -> np.ndarray:
    """Number of lines and length of the longest line of each row; int64 of shape (rows, 2)."""

    def make() -> np.ndarray:
        from raysandbox.ops import kernels

        points = code_points(batch)
        return kernels.line_lengths(points.codes, points.starts, points.ends, tables.line_breaks())

    return batch.view("line_lengths", make)


def words(batch: Batch, *, lower: bool) -> Words:
    """The batch's words, in lower case if asked.

    The letters are lowered before the words are stripped, as Data-Juicer does: a few special
    characters are letters.
    """

    def make() -> Words:
        from raysandbox.ops import kernels

        points = lowered_points(batch) if lower else code_points(batch)
        starts, ends, offsets = kernels.word_spans(points.codes, points.starts, points.ends, tables.word_classes())
        return Words(points.codes, starts, ends, offsets[:-1].copy(), offsets[1:].copy())

    return batch.view(("words", lower), make)


def lowered_points(batch: Batch) -> CodePoints:
    """The code points of the batch's texts in lower case, as `str.lower` gives it."""
    return batch.view("lowered", lambda: _lowered(code_points(batch)))


def plain_words(batch: Batch) -> Words:
    """The batch's words with the special characters at their ends."""

    def make() -> Words:
        from raysandbox.ops import kernels

        points = code_points(batch)
        separators = tables.members(" \n\t")
        starts, ends, offsets = kernels.word_spans(points.codes, points.starts, points.ends, separators)
        return Words(points.codes, starts, ends, offsets[:-1].copy(), offsets[1:].copy())

    return batch.view("plain_words", make)


def _lowered(points: CodePoints) -> CodePoints:
    from raysandbox.ops import kernels

    lowered = CodePoints(kernels.translate(points.codes, tables.lower()), points.starts, points.ends)
    irregular = kernels.any_in(points.codes, points.starts, points.ends, tables.lowers_in_context())
    rows = np.flatnonzero(irregular).tolist()
    return lowered.replace(rows, [points.text(row).lower() for row in rows]) if rows else lowered


def replace_rows(batch: Batch, rows: Sequence[int], texts: Sequence[str]) -> Batch:
    """The batch with other texts in some rows.

    The column keeps its type, and code points that are known are not computed again.

    Args:
        batch: the rows.
        rows: indices of the rows to change, ascending.
        texts: their new texts.
    """
    if not rows:
        return batch
    mask = np.zeros(batch.num_rows, bool)
    mask[rows] = True
    old = text_array(batch)
    column = pc.call_function("replace_with_mask", [old, pa.array(mask), pa.array(texts, pa.large_string())])
    changed = batch.with_texts(column.cast(batch.table.schema.field(batch.keys.text).type))
    if batch.has_view("code_points"):
        points = code_points(batch)
        changed.view("code_points", lambda: points.replace(rows, texts))
    return changed


def _put(batch: Batch, rows: np.ndarray, new: CodePoints) -> Batch:
    """The batch with other texts, one for each of `rows`."""
    return replace_rows(batch, rows.tolist(), [new.text(index) for index in range(rows.size)])


def replace_characters(batch: Batch, table: np.ndarray, replacements: Sequence[str] = ("",)) -> Batch:
    """The batch with single characters replaced.

    Args:
        batch: the rows.
        table: uint8 per code point, 0 for those that stay, k for those that `replacements[k - 1]`
            takes the place of.
        replacements: what characters are replaced by.
    """
    from raysandbox.ops import character_kernels, kernels

    points = code_points(batch)
    rows = np.flatnonzero(kernels.any_in(points.codes, points.starts, points.ends, table))
    new_codes = np.frombuffer("".join(replacements).encode("utf-32-le"), np.uint32)
    new_bounds = np.concatenate(([0], np.cumsum([len(text) for text in replacements])))
    changed = character_kernels.substitute(
        points.codes, points.starts[rows], points.ends[rows], table, new_codes, new_bounds
    )
    return _put(batch, rows, CodePoints(*changed))


def leave_out(batch: Batch, spans: np.ndarray) -> Batch:
    """The batch without some spans of its texts.

    Args:
        batch: the rows.
        spans: as for `edit`.
    """
    from raysandbox.ops import character_kernels

    points = code_points(batch)
    rows, *left = character_kernels.leave_out(points.codes, points.starts, points.ends, spans)
    return _put(batch, rows, CodePoints(*left))


def keep_words(batch: Batch, found: Words, keep: np.ndarray) -> Batch:
    """The batch with some of its words only.

    White space at the ends of texts goes; between two words stands a newline if there was one
    anywhere between them, else a tab if there was one, else a space.

    Args:
        batch: the rows.
        found: their `plain_words`.
        keep: bool per word.
    """
    from raysandbox.ops import word_kernels

    points = code_points(batch)
    codes, bounds, changed = word_kernels.join(
        points.codes, points.starts, points.ends, found.firsts, found.lasts, found.starts, found.ends, keep
    )
    return _put(batch, np.flatnonzero(changed), CodePoints(codes, bounds[:-1], bounds[1:]).select_rows(changed))


def edit(batch: Batch, spans: np.ndarray, change: Callable[[str, int], str]) -> Batch:
    """The batch with some spans of its texts changed.

    Args:
        batch: the rows.
        spans: int64 of shape (n, 4): row, start and end in the batch's code points, and anything;
            ascending and without overlap.
        change: from a span's text and its index to the new text.
    """
    points = code_points(batch)
    rows: list[int] = []
    pieces: list[list[str]] = []
    copied = 0
    ends = points.ends.tolist()
    for index, (row, start, end, _) in enumerate(spans.tolist()):
        old = points.slice(start, end)
        new = change(old, index)
        if new == old:
            continue
        if not rows or rows[-1] != row:
            if rows:
                pieces[-1].append(points.slice(copied, ends[rows[-1]]))
            rows.append(row)
            pieces.append([])
            copied = int(points.starts[row])
        pieces[-1] += [points.slice(copied, start), new]
        copied = end
    if rows:
        pieces[-1].append(points.slice(copied, ends[rows[-1]]))
    return replace_rows(batch, rows, ["".join(parts) for parts in pieces])
