"""Marks in a text that stand for its files, and its chunks, as Data-Juicer writes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AUDIO_TOKEN", "CHUNK_END", "IMAGE_TOKEN", "VIDEO_TOKEN", "Chunk", "chunks_of"]

IMAGE_TOKEN = "<__dj__image>"
AUDIO_TOKEN = "<__dj__audio>"
VIDEO_TOKEN = "<__dj__video>"
CHUNK_END = "<|__dj__eoc|>"


@dataclass(frozen=True)
class Chunk:
    """A part of a text that names files.

    Attributes:
        text: its words, without marks.
        files: which of the row's files it names.
    """

    text: str
    files: slice


def chunks_of(text: str, token: str) -> list[Chunk]:
    """The chunks of a text that name files of a kind; the n-th mark of the text is the n-th file.

    Args:
        text: chunks, each but the last ended by `CHUNK_END`.
        token: the mark of the files, e.g. `VIDEO_TOKEN`.
    """
    chunks, first = [], 0
    for part in text.split(CHUNK_END):
        last = first + part.count(token)
        if last > first:
            chunks.append(Chunk(_without_marks(part), slice(first, last)))
        first = last
    return chunks


def _without_marks(text: str) -> str:
    for mark in (IMAGE_TOKEN, AUDIO_TOKEN, VIDEO_TOKEN, CHUNK_END):
        text = text.replace(mark, "").strip()
    return text
