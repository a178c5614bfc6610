"""Data sets of videos with captions, from Data-Juicer's layout to that of EasyAnimate's trainers."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raysandbox.core.component import InputPath, InputPaths, OutputPath
from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.files import atomic_write
from raysandbox.core.keys import digest
from raysandbox.core.registry import register
from raysandbox.core.runner import WorkSession
from raysandbox.executors.base import DataExecutor
from raysandbox.ops.batch import FOLDER_COLUMN
from raysandbox.ops.special_tokens import SpecialTokens

__all__ = ["VideoDatasetConversion"]

logger = logging.getLogger(__name__)

_SHOWN = 3  # rows that a message names
_NO_VIDEO, _MISSING = "no video", "the video is missing"


@register("dj_to_easyanimate_video_dataset_conversion")
class VideoDatasetConversion(DataExecutor):
    """Writes data sets as `{name}_ea_fmt.json`, a list of `{"file_path", "text", "type": "video"}`.

    A row with several videos gives an entry for each; a caption is the text without its marks, and
    where the text has a mark for every video, the part that names it. Paths become absolute. Rows without
    a video, and videos that are missing, go to quarantine. The name is that of the file or folder; of a
    glob what it begins with, or else its folder; a mix is `mix_` with a digest of what it is.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "dataset_path": "./outputs/demo/selected.jsonl",
        "export_path": "./outputs/demo/train_data",
    }

    # Rows name the videos, which a job's key does not see; to look for them again costs little.
    keeps_own_results: ClassVar[bool] = True

    dataset_path: InputPaths = Field(description="data set, or several: file, folder, glob or weighted mix")
    export_path: OutputPath = Field(description="folder to write `{name}_ea_fmt.json` of each data set into")
    text_key: str = Field("text", description="column of the captions")
    video_key: str = Field("videos", description="column of the videos: a list of paths, or one path")
    video_dir: InputPath | None = Field(
        None,
        description="folder that relative paths of videos start from; those that are not there, and by default all, "
        "start at the data set's",
    )

    def execute(self, session: WorkSession) -> list[str]:
        """Returns the paths of what was written, in the order of the data sets.

        Raises:
            UserError: two data sets would be written to the same file.
            JobFailed: no row of a data set has a video that is there.
            BadRowsError: a line cannot be read.
        """
        targets = self._targets()
        converted = {source: self._converted(source, session) for source in targets}
        totals: Counter[str] = Counter()
        for source, target in targets.items():
            found = converted[source]
            found.write_quarantine(session.quarantine / f"{target.name}.quarantine", source)
            found.tell(source)
            totals.update(found.counts())
        session.report({name: float(number) for name, number in totals.items()})
        for source, found in converted.items():
            if not found.entries:
                raise JobFailed(
                    f"dataset_path: no row of {source} has a video that is there ({found.first_reason()}): "
                    f"set video_key to the column of the videos, or video_dir to the folder that their paths start from"
                )
        for source, target in targets.items():
            atomic_write(target, json.dumps(converted[source].entries, ensure_ascii=False, indent=2) + "\n")
        return [str(target) for target in targets.values()]

    def _targets(self) -> dict[str, Path]:
        """What to write of each data set.

        Raises:
            UserError: two have the same name.
        """
        found: dict[str, Path] = {}
        for source in [self.dataset_path] if isinstance(self.dataset_path, str) else self.dataset_path:
            target = Path(self.export_path).expanduser() / f"{_name_of(source)}_ea_fmt.json"
            if target in found.values():
                raise UserError(
                    f"dataset_path: two data sets would be written to {target}: rename one of them, or convert them "
                    f"in two jobs with an export_path each"
                )
            found[source] = target
        return found

    def _converted(self, source: str, session: WorkSession) -> _Converted:
        pairs = session.scorers.score(source, _Pairs(self.text_key, self.video_key), paths_as_written=True)
        found = _Converted([], [], pairs.num_rows)
        for number, row in enumerate(pairs.to_pylist(), start=1):
            if not row["videos"]:
                found.bad.append(_Bad(number, _NO_VIDEO, "", row["text"]))
            for path, caption in zip(row["videos"], row["captions"], strict=True):
                located = self._located(path, row["folder"])
                if located is None:
                    found.bad.append(_Bad(number, _MISSING, path, row["text"]))
                else:
                    found.entries.append({"file_path": located, "text": caption, "type": "video"})
        return found

    def _located(self, path: str, folder: str) -> str | None:
        """Where a video stands, absolute; None if it is missing.

        An absolute path names one file. A relative one starts at `video_dir`, else at the folder of the row's
        data set, and nowhere else: a file of the same name there would be another video than the caption's.
        """
        starts = filter(None, [self.video_dir, folder])
        own = os.path.expanduser(path)
        tried = (os.path.abspath(os.path.join(os.path.expanduser(start), own)) for start in starts)
        return next((each for each in tried if os.path.isfile(each)), None)


def _name_of(source: str) -> str:
    """What the file of a data set is named after: a file or folder, what its glob begins with, or the whole mix."""
    try:
        words = [source] if os.path.exists(source) else shlex.split(source)
    except ValueError as error:  # open quotes
        raise UserError(f"dataset_path: {source} is neither a path nor a weighted mix: {error}") from error
    paths = [word for word in words if not _is_weight(word)]
    if len(paths) != 1:
        return f"mix_{digest(source)[:8]}"
    path = os.path.abspath(os.path.expanduser(paths[0]))
    if os.path.isdir(path):
        return os.path.basename(path)
    if not os.path.exists(path) and glob.has_magic(path):
        return _name_of_glob(path)
    return Path(path.removesuffix(".gz").removesuffix(".zst")).stem


def _name_of_glob(path: str) -> str:
    """`part` of `/data/clips/part-*.jsonl`; where it begins with a wildcard, `clips`, the folder."""
    fixed = re.split(r"[*?[]", path, maxsplit=1)[0]
    folder, begin = os.path.split(fixed)
    return begin.strip("-_.") or os.path.basename(folder) or "data"


def _is_weight(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class _Bad:
    """A row that gives no entry, or one fewer.

    Attributes:
        row: its number in the data set, from 1.
        reason: why.
        video: the path that is missing, or "".
        text: its caption with marks.
    """

    row: int
    reason: str
    video: str
    text: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}{' ' + self.video if self.video else ''}"


@dataclass(frozen=True)
class _Converted:
    """What became of a data set.

    Attributes:
        entries: for the trainer, in the order of the rows.
        bad: what gave none.
        rows: how many rows there are.
    """

    entries: list[dict[str, str]]
    bad: list[_Bad]
    rows: int

    def counts(self) -> dict[str, int]:
        """For the metrics."""
        return {
            "rows": self.rows,
            "videos": len(self.entries),
            "rows_without_video": self._number(_NO_VIDEO),
            "missing_videos": self._number(_MISSING),
            "videos_without_text": sum(not entry["text"] for entry in self.entries),
        }

    def _number(self, reason: str) -> int:
        return sum(bad.reason == reason for bad in self.bad)

    def first_reason(self) -> str:
        """Why there is nothing."""
        return str(self.bad[0]) if self.bad else "it has no rows"

    def tell(self, source: str) -> None:
        """Names in warnings what is left out, and captions that are empty."""
        for reason in (_NO_VIDEO, _MISSING):
            named = [str(bad) for bad in self.bad if bad.reason == reason]
            if named:
                shown = "; ".join(named[:_SHOWN]) + ("; …" if len(named) > _SHOWN else "")
                logger.warning("%s: %d left out of %d rows: %s", source, len(named), self.rows, shown)
        silent = self.counts()["videos_without_text"]
        if silent:
            logger.warning("%s: %d videos have no caption: they train the model without a prompt", source, silent)

    def write_quarantine(self, target: Path, source: str) -> None:
        """Writes what is left out as JSON lines; the file of an earlier run goes."""
        if not self.bad:
            target.unlink(missing_ok=True)
            return
        records = (
            {"file": source, "row": bad.row, "reason": bad.reason, "video": bad.video, "text": bad.text}
            for bad in self.bad
        )
        atomic_write(target, "".join(json.dumps(record) + "\n" for record in records))


@dataclass(frozen=True)
class _Pairs:
    """Takes videos with their captions out of rows; a `core.runner.RowScorer`."""

    text_key: str
    video_key: str

    def load(self) -> None:
        """Nothing is needed."""

    def score(self, table: pa.Table, state: None) -> Mapping[str, pa.Array]:
        """Returns `text`, the lists `videos` and `captions` of equal lengths, and where relative paths start.

        Raises:
            UserError: a column holds something else.
        """
        texts = [text or "" for text in _column(table, self.text_key, (str,))]
        values = _column(table, self.video_key, (str, list))
        videos = [list(_paths(value, self.video_key)) for value in values]
        captions = [SpecialTokens().captions(text, len(paths)) for text, paths in zip(texts, videos, strict=True)]
        lists = pa.list_(pa.large_string())
        return {
            "text": pa.array(texts, pa.large_string()),
            "videos": pa.array(videos, lists),
            "captions": pa.array(captions, lists),
            "folder": table.column(FOLDER_COLUMN),
        }


def _column(table: pa.Table, name: str, types: tuple[type, ...]) -> list[Any]:
    """The values of a column, None in every row if there is none."""
    if name not in table.column_names:
        return [None] * table.num_rows
    values = table.column(name).to_pylist()
    other = next((value for value in values if not isinstance(value, (*types, type(None)))), None)
    if other is not None:
        kinds = "text" if types == (str,) else "a list of paths"
        raise UserError(f"'{name}' holds {type(other).__name__}, not {kinds}: set text_key and video_key")
    return values


def _paths(value: str | list[Any] | None, name: str) -> Iterator[str]:
    for path in value if isinstance(value, list) else [value]:
        if not isinstance(path, str | None):
            raise UserError(f"'{name}' holds {type(path).__name__}, not a path: set video_key")
        if path:
            yield path
