"""Generated videos at a glance: a sheet of frames and short animations, before and after a training."""

from __future__ import annotations

import importlib
import importlib.util
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysandbox.core.errors import MissingExtraError
from raysandbox.core.files import atomic_dir, atomic_path

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

__all__ = ["overview"]

# What is shown at most, so that a suite of a thousand prompts gives a picture that can be looked at.
_PROMPTS, _VIDEOS, _PREVIEW_FRAMES = 16, 3, 48
_FRAMES_ALONE, _FRAMES_BESIDE = 6, 4  # of a video on the sheet, without and with the video before
_TILE, _PREVIEW = 96, (128, 256)  # pixels: height on the sheet; least and greatest height of a preview
_WIDEST = 2.4  # width of a tile over its height, at most
_TEXT, _GAP, _HEAD, _FONT = 240, 4, 24, 13  # pixels: column of prompts, between tiles, titles, letters
_PAPER, _INK, _EMPTY = (255, 255, 255), (30, 30, 30), (205, 205, 205)

_Pair = tuple[Path | None, Path | None]  # a video before and after; before is None where there is nothing to compare


def overview(
    folder: Path,
    prompts: Sequence[tuple[str, Sequence[Path]]],
    before: Sequence[Sequence[Path | None]] | None = None,
) -> Path:
    """Writes `contact_sheet.png`, a row of frames for each prompt, and `previews/`, an animation for each.

    Of many prompts and videos the first are shown, and the sheet says how many are not. A video that is
    missing or cannot be decoded leaves an empty field.

    Args:
        folder: where to write.
        prompts: each prompt with its videos.
        before: for each prompt, for each of its videos the one to compare with, or None.

    Returns:
        the sheet.

    Raises:
        MissingExtraError: PyAV or Pillow is not installed.
    """
    for module, package in (("av", "av"), ("PIL", "pillow")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, "media", "A contact sheet of videos")
    compared = before is not None
    rows = []
    target = folder / "contact_sheet.png"
    with atomic_dir(folder / "previews") as previews:
        for number, (prompt, videos) in enumerate(prompts[:_PROMPTS]):
            earlier = list(before[number]) if before is not None else []
            earlier += [None] * (len(videos) - len(earlier))
            pairs = list(zip(earlier, videos, strict=False))[:_VIDEOS]
            clips = [(_read(old), _read(new)) for old, new in pairs]
            _write_preview(previews / f"{number:03d}-{_slug(prompt)}.webp", clips, compared)
            rows.append(_Row(prompt, len(videos), [_Line.of(pair, compared) for pair in clips]))
    with atomic_path(target) as temporary:
        _sheet(rows, len(prompts) - len(rows), compared).save(temporary, format="PNG", optimize=True)
    return target


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt).strip("-")[:48].encode()[:96].decode("utf-8", "ignore") or "video"


@dataclass(frozen=True)
class _Clip:
    """Frames of a video, evenly spaced where it has more than a preview shows.

    Attributes:
        frames: at most `_PREVIEW_FRAMES` pictures, of a preview's size.
        seconds: how long the video lasts.
    """

    frames: list[Image]
    seconds: float

    def at(self, number: int) -> list[Image]:
        """So many of the frames, evenly spaced from the first to the last."""
        last = len(self.frames) - 1
        return [self.frames[round(index * last / max(number - 1, 1))] for index in range(number)]

    def during(self, seconds: float) -> Image:
        """What is seen after so many seconds; the video begins anew at its end."""
        return self.frames[int(seconds / self.seconds * len(self.frames) + 1e-6) % len(self.frames)]


def _read(path: Path | None) -> _Clip | None:
    """Decodes a video; None if it is missing or damaged."""
    if path is None or not path.is_file():
        return None
    av: Any = importlib.import_module("av")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            size = _preview_size(stream.width, stream.height)
            step = max(stream.frames / _PREVIEW_FRAMES, 1.0)
            kept = {int(index * step) for index in range(_PREVIEW_FRAMES)} if stream.frames else None
            frames, decoded = [], 0
            for frame in container.decode(stream):
                if kept is None or decoded in kept:
                    frames.append(frame.to_image(width=size[0], height=size[1]))
                decoded += 1
            rate = float(stream.average_rate or 12)
    except (av.error.FFmpegError, OSError, IndexError):
        return None
    if not frames:
        return None
    return _Clip(frames if len(frames) <= _PREVIEW_FRAMES else _Clip(frames, 0).at(_PREVIEW_FRAMES), decoded / rate)


def _preview_size(width: int, height: int) -> tuple[int, int]:
    target = min(max(height, _PREVIEW[0]), _PREVIEW[1])
    return max(round(min(width / height, _WIDEST) * target), 1), target


@dataclass(frozen=True)
class _Line:
    """A video on the sheet.

    Attributes:
        groups: for each column of the sheet (before and after, or one) its tiles, None where there is no picture.
    """

    groups: list[list[Image | None]]

    @classmethod
    def of(cls, pair: tuple[_Clip | None, _Clip | None], compared: bool) -> _Line:
        number = _FRAMES_BESIDE if compared else _FRAMES_ALONE
        columns = pair if compared else pair[1:]
        return cls([[*map(_tile, clip.at(number))] if clip else [None] * number for clip in columns])


def _tile(image: Image) -> Image:
    return image.resize((max(round(image.width * _TILE / image.height), 1), _TILE))


@dataclass(frozen=True)
class _Row:
    """A prompt on the sheet.

    Attributes:
        prompt: its text.
        videos: how many there are of it.
        lines: those that are shown.
    """

    prompt: str
    videos: int
    lines: list[_Line]

    @property
    def height(self) -> int:
        return max(len(self.lines), 1) * (_TILE + _GAP) + 2 * _GAP

    def text(self) -> str:
        """The prompt, shortened to its field, and how many videos are not shown."""
        hidden = self.videos - len(self.lines)
        note = [f"({hidden} more videos)"] if hidden else []
        room = (self.height - _GAP) // (_FONT + 4) - len(note)
        return "\n".join([*textwrap.wrap(self.prompt, 32, max_lines=max(room, 1), placeholder=" …"), *note])


def _sheet(rows: Sequence[_Row], hidden: int, compared: bool) -> Image:
    """Puts rows of tiles on white paper.

    Args:
        rows: the prompts.
        hidden: how many prompts are not shown.
        compared: whether there are columns before and after.
    """
    pil: Any = importlib.import_module("PIL.Image")
    draw: Any = importlib.import_module("PIL.ImageDraw")
    tiles = [tile for row in rows for line in row.lines for group in line.groups for tile in group if tile]
    tile_width = max((tile.width for tile in tiles), default=_TILE)
    frames = _FRAMES_BESIDE if compared else _FRAMES_ALONE
    group_width = frames * (tile_width + _GAP) + 3 * _GAP
    groups = 2 if compared else 1
    notes = [f"{hidden} more prompts are not shown"] if hidden else []
    height = _HEAD + sum(row.height for row in rows) + _HEAD * len(notes) + _GAP
    sheet = pil.new("RGB", (_TEXT + groups * group_width, height), _PAPER)
    pen, font = draw.Draw(sheet), _font()
    for column, title in enumerate(("before", "after") if compared else ("generated videos",)):
        pen.text((_TEXT + column * group_width, _GAP), title, fill=_INK, font=font)
    top = _HEAD
    for row in rows:
        pen.line([(0, top), (sheet.width, top)], fill=_EMPTY)
        pen.multiline_text((_GAP, top + _GAP), row.text(), fill=_INK, font=font, spacing=3)
        for number, line in enumerate(row.lines):
            y = top + _GAP + number * (_TILE + _GAP)
            for column, group in enumerate(line.groups):
                for index, tile in enumerate(group):
                    x = _TEXT + column * group_width + index * (tile_width + _GAP)
                    _put(sheet, tile, (x, y), (tile_width, _TILE))
        top += row.height
    for note in notes:
        pen.text((_GAP, top + _GAP), note, fill=_INK, font=font)
    return sheet


def _put(sheet: Image, tile: Image | None, place: tuple[int, int], size: tuple[int, int]) -> None:
    """Puts a picture, or the field of one that is missing."""
    if tile is not None:
        sheet.paste(tile, place)
    else:
        draw: Any = importlib.import_module("PIL.ImageDraw")
        x, y = place
        pen = draw.Draw(sheet)
        pen.rectangle([x, y, x + size[0] - 1, y + size[1] - 1], fill=_EMPTY)
        pen.text((x + _GAP, y + _GAP), "missing", fill=_INK, font=_font())


def _write_preview(target: Path, clips: Sequence[tuple[_Clip | None, _Clip | None]], compared: bool) -> None:
    """Writes an animation: a line for each video, before and after side by side; or all videos side by side.

    It lasts as long as the longest of them; shorter ones begin anew.
    """
    pil: Any = importlib.import_module("PIL.Image")
    draw: Any = importlib.import_module("PIL.ImageDraw")
    lines = [list(pair) for pair in clips] if compared else [[new for _, new in clips]]
    shown = [clip for line in lines for clip in line if clip]
    if not shown:
        return
    longest = max(shown, key=lambda clip: clip.seconds)
    tile = tuple(max(side) for side in zip(*(clip.frames[0].size for clip in shown), strict=True))
    step, head = (tile[0] + _GAP, tile[1] + _GAP), _HEAD if compared else 0
    empty = pil.new("RGB", (len(lines[0]) * step[0] - _GAP, head + len(lines) * step[1] - _GAP), _PAPER)
    for column, title in enumerate(("before", "after") if compared else ()):
        draw.Draw(empty).text((column * step[0], _GAP), title, fill=_INK, font=_font())
    duration = longest.seconds / len(longest.frames)
    pictures = [empty.copy() for _ in longest.frames]
    for number, picture in enumerate(pictures):
        for row, line in enumerate(lines):
            for column, clip in enumerate(line):
                frame = clip.during(number * duration) if clip else None
                _put(picture, frame, (column * step[0], head + row * step[1]), (tile[0], tile[1]))
    pictures[0].save(
        target,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * duration),
        loop=0,
        quality=75,
    )


def _font() -> FreeTypeFont:
    """A font that holds Latin, Greek and Cyrillic letters; the one that Matplotlib brings."""
    fonts: Any = importlib.import_module("PIL.ImageFont")
    spec = importlib.util.find_spec("matplotlib")
    folders = spec.submodule_search_locations if spec is not None and spec.submodule_search_locations else [""]
    return fonts.truetype(str(Path(folders[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")), _FONT)
