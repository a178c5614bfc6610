"""Views of a batch's texts that operators share, and edits of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

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
    "with_points",
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

    def slices(self, starts: np.ndarray, ends: np.ndarray) -> list[str]:
        """What lies between each start and its end, as strings."""
        from raysandbox.ops import edit_kernels

        joined = edit_kernels.gather(self.codes, starts, ends).tobytes().decode("utf-32-le")
        return [joined[start:end] for start, end in pairwise(_bounds(ends - starts).tolist())]

    def splice(self, spans: np.ndarray, texts: Sequence[str]) -> CodePoints:
        """The rows with other texts in the place of some spans.

        Args:
            spans: int64 of shape (n, 3 or more): row, start and end; ascending and without overlap.
            texts: what replaces each of them.
        """
        new = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        return self._splice(spans, new, _bounds(np.fromiter(map(len, texts), np.int64, len(texts))))

    def replace(self, rows: np.ndarray, texts: Sequence[str]) -> CodePoints:
        """Other texts for some rows (int64, ascending)."""
        return self.splice(self._spans_of(rows), texts)

    def put(self, rows: np.ndarray, new: CodePoints) -> CodePoints:
        """Other code points for some rows (int64, ascending)."""
        from raysandbox.ops import edit_kernels

        codes = edit_kernels.gather(new.codes, new.starts, new.ends)
        return self._splice(self._spans_of(rows), codes, _bounds(new.lengths))

    def _spans_of(self, rows: np.ndarray) -> np.ndarray:
        return np.stack((rows, self.starts[rows], self.ends[rows]), axis=1)

    def _splice(self, spans: np.ndarray, new: np.ndarray, bounds: np.ndarray) -> CodePoints:
        from raysandbox.ops import edit_kernels

        return CodePoints(*edit_kernels.splice(self.codes, self.starts, self.ends, spans, new, bounds))


def _bounds(lengths: np.ndarray) -> np.ndarray:
    """Where pieces of these lengths start and end, one after the other; int64 of shape (n + 1,)."""
    return np.concatenate(([0], np.cumsum(lengths)))


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
        if lower and _splits_alike(code_points(batch)):
            return replace(words(batch, lower=False), codes=points.codes)
        starts, ends, offsets = kernels.word_spans(points.codes, points.starts, points.ends, tables.word_classes())
        return Words(points.codes, starts, ends, offsets[:-1].copy(), offsets[1:].copy())

    return batch.view(("words", lower), make)


def _splits_alike(points: CodePoints) -> bool:
    """Whether the lower-case texts have their words at the same places."""
    from raysandbox.ops import kernels

    return not kernels.any_in(points.codes, points.starts, points.ends, tables.moves_words()).any()


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
    rows = np.flatnonzero(irregular)
    return lowered.replace(rows, [points.text(row).lower() for row in rows.tolist()]) if len(rows) else lowered


def with_points(batch: Batch, points: CodePoints, rows: np.ndarray) -> Batch:
    """The batch with the texts that code points spell.

    The column keeps its type, and the code points are not computed again.

    Args:
        batch: the rows.
        points: code points of all rows.
        rows: indices (ascending) of the rows that differ from the batch's.
    """
    from raysandbox.ops import edit_kernels

    if not len(rows):
        return batch
    data, offsets = edit_kernels.encode(points.codes, points.starts[rows], points.ends[rows])
    texts = pa.LargeStringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(data))
    changed = _with_column(batch, rows, texts)
    changed.view("code_points", lambda: points)
    return changed


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
    indices = np.array(rows, np.int64)
    changed = _with_column(batch, indices, pa.array(texts, pa.large_string()))
    if batch.has_view("code_points"):
        points = code_points(batch)
        changed.view("code_points", lambda: points.replace(indices, texts))
    return changed


def _with_column(batch: Batch, rows: np.ndarray, texts: pa.Array) -> Batch:
    """The batch with other texts, one for each of `rows`, in a column of the same type."""
    mask = np.zeros(batch.num_rows, bool)
    mask[rows] = True
    column = pc.call_function("replace_with_mask", [text_array(batch), pa.array(mask), texts])
    return batch.with_texts(column.cast(batch.table.schema.field(batch.keys.text).type))


def _put(batch: Batch, rows: np.ndarray, new: CodePoints) -> Batch:
    """The batch with other texts, one for each of `rows`."""
    return with_points(batch, code_points(batch).put(rows, new), rows) if len(rows) else batch


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
    if not len(spans):
        return batch
    return with_points(batch, code_points(batch).splice(spans, [""] * len(spans)), np.unique(spans[:, 0]))


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
    changed: list[int] = []
    texts: list[str] = []
    for index, old in enumerate(points.slices(spans[:, 1], spans[:, 2])):
        new = change(old, index)
        if new != old:
            changed.append(index)
            texts.append(new)
    if not changed:
        return batch
    spans = spans[changed]
    return with_points(batch, points.splice(spans, texts), np.unique(spans[:, 0]))
