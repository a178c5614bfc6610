"""The clips that a model learns from: read from a trainer's JSON or a data set of Data-Juicer, and checked."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import BadRowsError, JobFailed
from raysandbox.core.files import atomic_write
from raysandbox.executors.train._rows import read_columns
from raysandbox.ops.special_tokens import SpecialTokens

__all__ = ["BadClip", "Clip", "clip_stamps", "file_stamp", "read_clips", "spend_budget"]

logger = logging.getLogger(__name__)

_SHOWN = 5
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class Clip:
    """A video with its caption.

    Attributes:
        place: where it stands in the data set, for messages.
        path: of the file.
        text: the caption.
    """

    place: str
    path: str
    text: str


@dataclass(frozen=True)
class BadClip:
    """An entry that nothing can be learned from, and why."""

    place: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.path or 'no file'}: {self.reason}"


def read_clips(dataset: str, root: str | None, key: str) -> tuple[list[Clip], list[BadClip]]:
    """Reads a training set.

    Args:
        dataset: JSON list of `{"file_path", "text", "type"}`, or rows of Data-Juicer with `videos` and `text`.
        root: folder where relative paths start; by default that of the data set, then the current one.
        key: what messages call the data set.

    Returns:
        The clips in order, and the entries that are none. Files are not opened yet.

    Raises:
        JobFailed: the data set cannot be read, or its rows name no files.
    """
    source = Path(dataset).expanduser()
    rows = read_columns(source, {}, key).to_pylist()
    clips: list[Clip] = []
    bad: list[BadClip] = []
    silent = 0
    for number, row in enumerate(rows, start=1):
        place = f"{source} row {number}"
        for path, text, kind in _entries(row, place, key):
            located = _located(path, source, root) if path else ""
            reason = _refusal(path, located, kind)
            silent += not reason and not text
            clips += [] if reason else [Clip(place, located, text)]
            bad += [BadClip(place, path, reason)] if reason else []
    if silent:
        logger.warning("%s: %d clips of %s have no caption: they train the model without a prompt", key, silent, source)
    return clips, bad


def clip_stamps(dataset: str, root: str | None) -> Any:
    """Path, size and time of change of every clip of a data set, and the other files that it names.

    None while it cannot be read.
    """
    try:
        clips, bad = read_clips(dataset, root, "dataset")
    except JobFailed:
        return None  # an earlier job may still write it
    return [[clip.path, *file_stamp(clip.path)] for clip in clips] + [[each.path] for each in bad]


def file_stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in ns."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def spend_budget(bad: Sequence[BadClip], total: int, allowed: float, quarantine: Path, key: str) -> None:
    """Names the entries that are left out, and refuses when they are too many.

    Args:
        bad: what is left out.
        total: number of entries.
        allowed: most that may be left out, or below 1 which share of them (`max_bad_rows`).
        quarantine: file that names all of them, with reasons; that of an earlier run goes.
        key: what messages call the data set.

    Raises:
        BadRowsError: there are more than allowed.
        JobFailed: nothing is left.
    """
    if bad:
        records = [{"place": each.place, "path": each.path, "reason": each.reason} for each in bad]
        atomic_write(quarantine, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    else:
        quarantine.unlink(missing_ok=True)
    shown = "".join(f"\n  {each}" for each in bad[:_SHOWN]) + ("\n  …" if len(bad) > _SHOWN else "")
    if len(bad) / total > allowed if 0 < allowed < 1 else len(bad) > allowed:
        raise BadRowsError(
            f"{key}: {len(bad)} of {total} clips cannot be trained on, max_bad_rows allows {allowed}:{shown}\n"
            f"(mend or remove them, or set max_bad_rows; all are in {quarantine})"
        )
    if len(bad) == total:
        raise JobFailed(f"{key}: no clip is left to train on{shown}")
    if bad:
        logger.warning("%s: %d of %d clips are left out:%s", key, len(bad), total, shown)


def _entries(row: Mapping[str, Any], place: str, key: str) -> Iterator[tuple[str, str, str | None]]:
    """Path, caption and kind of each file of a row."""
    text = row.get("text") or ""
    if "file_path" in row:
        files, kind = [row["file_path"]], row.get("type")
    elif "videos" in row:
        given, kind = row["videos"] or [], "video"
        files = [given] if isinstance(given, str) else given
    else:
        raise JobFailed(f"{key}: {place} has neither 'file_path' nor 'videos'; its keys are {', '.join(row)}")
    readable = isinstance(text, str) and isinstance(files, list)
    if not readable or not all(isinstance(each, str | None) for each in files):
        raise JobFailed(f"{key}: {place}: 'text' and the paths of its files must be text")
    captions = SpecialTokens().captions(text, len(files))
    yield from zip((each or "" for each in files), captions, [kind] * len(files), strict=True)
    if not files:
        yield "", text, kind


def _located(path: str, dataset: Path, root: str | None) -> str:
    """The first of the places where a path may start that has the file, else the first one; absolute."""
    starts = [os.path.expanduser(root)] if root else [str(dataset if dataset.is_dir() else dataset.parent), "."]
    tried = [os.path.abspath(os.path.join(start, os.path.expanduser(path))) for start in starts]
    return next((each for each in tried if os.path.isfile(each)), tried[0])


def _refusal(path: str, located: str, kind: str | None) -> str:
    """Why an entry is no clip; "" if it is one.

    The original takes a missing type for an image; here the file's suffix decides.
    """
    if not path:
        return "it names no video"
    if kind not in (None, "video", "image"):
        return f"its type is '{kind}' (video is trained on)"
    if kind == "image" or (kind is None and Path(path).suffix.lower() in _IMAGES):
        return "it is an image, and only videos are trained on"
    return "" if os.path.isfile(located) else f"there is no file {located}"
