"""Marks in a text that stand for its files, and its chunks, as Data-Juicer writes them."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

__all__ = ["Chunk", "SpecialTokens"]


@dataclass(frozen=True)
class Chunk:
    """A part of a text that names files.

    Attributes:
        text: its words, without marks.
        files: which of the row's files it names.
    """

    text: str
    files: slice


@dataclass(frozen=True)
class SpecialTokens:
    """The marks: one for each kind of file, and one at the end of every chunk but the last."""

    image: str = "<__dj__image>"
    audio: str = "<__dj__audio>"
    video: str = "<__dj__video>"
    eoc: str = "<|__dj__eoc|>"

    def chunks(self, text: str, kind: Literal["image", "audio", "video"]) -> list[Chunk]:
        """The chunks of a text that name files of a kind; its n-th mark of that kind is the n-th file."""
        token, first = getattr(self, kind), 0
        found: list[Chunk] = []
        for part in text.split(self.eoc):
            last = first + part.count(token)
            if last > first:
                found.append(Chunk(self.without(part), slice(first, last)))
            first = last
        return found

    def captions(self, text: str, count: int, kind: Literal["image", "audio", "video"] = "video") -> list[str]:
        """What a text says of each of a row's files: the chunk that names it, or else all of it, without marks.

        Args:
            text: with its marks.
            count: number of the files.
            kind: of the files.
        """
        named = [chunk.text for chunk in self.chunks(text, kind) for _ in range(chunk.files.start, chunk.files.stop)]
        return named if len(named) == count else [self.without(text)] * count

    def without(self, text: str) -> str:
        """A text without marks and the spaces around them at its ends."""
        for mark in astuple(self):
            text = text.replace(mark, "").strip()
        return text
