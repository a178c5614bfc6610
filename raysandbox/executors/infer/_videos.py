"""What all inferences of videos share: prompts → units → workers → videos, records, and what to look at."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.errors import MissingExtraError, UserError
from raysandbox.core.runner import WorkSession
from raysandbox.executors._video.clips import ENCODING, require_av
from raysandbox.executors._video.generation.generating import Generation, GenerationWork, Prepare, VideoMaker
from raysandbox.executors._video.generation.prompts import Prompts, read_prompts
from raysandbox.executors._video.generation.records import Record
from raysandbox.executors._video.generation.units import VideoUnit, units_of
from raysandbox.executors.base import ModelInference
from raysandbox.executors.infer._rows import write_rows

__all__ = ["VideoInference"]

logger = logging.getLogger(__name__)

_DEFAULT = "default"
_VBENCH_COUNT = 5  # what VBench scores of a prompt


class VideoInference(ModelInference):
    """Generates videos of prompts: a queue over the job's workers, resumable to the video."""

    prompts: InputPath = Field(
        description="prompt information of VBench (JSON), a data set (JSON lines, JSON, Parquet), or a text file "
        "with a prompt per line"
    )
    prompt_key: str | None = Field(
        None, description="column of the prompts in a data set; by default prompt_en, or else text"
    )
    prompt_limit: int | None = Field(None, ge=1, description="how many prompts to take from the beginning; null: all")
    videos_per_prompt: int | dict[str, int] = Field(
        _VBENCH_COUNT,
        description="videos of each prompt; or by dimension of VBench, with `default` for others: "
        "{default: 5, temporal_flickering: 25}",
    )
    output_dir: OutputPath | None = Field(
        None, description="folder of the videos; by default generated_videos among the job's artefacts"
    )
    seed: int = Field(42, ge=0, description="each video has a seed of its own, made of this, its prompt and its index")
    max_failed: int | float = Field(
        0, ge=0, description="how many videos may fail, or, below 1, which share of them, without failing the job"
    )
    compare_with: InputPath | None = Field(
        None, description="folder of earlier videos of the same prompts, shown beside these: before and after"
    )
    contact_sheet: bool = Field(True, description="write contact_sheet.png and previews among the job's artefacts")

    @field_validator("videos_per_prompt")
    @classmethod
    def _positive(cls, value: int | dict[str, int]) -> int | dict[str, int]:
        for name, count in value.items() if isinstance(value, dict) else [("", value)]:
            if count < 1:
                raise ValueError(f"{name + ': ' if name else ''}must be at least 1")
        return value

    @field_validator("max_failed")
    @classmethod
    def _number_or_share(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("must be a number of videos, or a share below 1")
        return value

    def infer(self, session: WorkSession) -> str:
        """Makes the videos that are not there yet; returns their folder.

        Writes `videos.jsonl` among the artefacts: a row for each video with `videos` (its path), `text` (its
        prompt), file, index, seed, seconds, in the order of the prompts.

        Raises:
            UserError: an input is not there, or does not fit.
            JobFailed: more videos failed than `max_failed` allows.
            MissingExtraError: PyAV or what the model needs is not installed.
        """
        require_av(f"generation of videos ({self.type_name})")
        if self.contact_sheet and importlib.util.find_spec("PIL") is None:
            raise MissingExtraError("pillow", "video", "contact_sheet")
        self._require()
        prompts = self._prompts()
        output = Path(self.output_dir).expanduser().absolute() if self.output_dir else None
        # The job's own folder is emptied when it is tried again: what is unfinished stands beside it.
        folder = output or session.artifacts.absolute().with_name(f".{session.artifacts.name}.unfinished")
        counts = {text: self._count(prompts, text) for text in prompts.texts}
        units = units_of(counts, self.seed, [ENCODING, self._identity(session)], lambda: _folds_case(folder))
        earlier = _to_compare(self.compare_with, units)
        generation = Generation(
            units,
            GenerationWork(self._maker(session), folder, (session.cache_dir / "videos").absolute(), self._fps()),
            self.max_failed,
            f"generating {len(units)} videos",
            self._prepare(session),
        )
        done = generation.run(session)
        made = sorted((unit for unit in units if unit.file in done), key=_by_prompt(prompts))
        if self.contact_sheet:
            _show(session.artifacts, folder, prompts, made, earlier)
        own = session.artifacts / "generated_videos"
        _note(session.artifacts, output or own, made, done)
        if self.output_dir is not None:
            return self.output_dir
        os.replace(folder, own)  # last of all: what ends before goes on from the unfinished folder
        return str(own)

    def _require(self) -> None:
        """Looks at what can be looked at before the work.

        Raises:
            UserError: something is missing or does not fit.
        """

    def _identity(self, session: WorkSession) -> Any:
        """What all videos depend on beside prompt, index and seed; JSON-like."""
        raise NotImplementedError

    def _maker(self, session: WorkSession) -> VideoMaker:
        """What makes the videos in the workers."""
        raise NotImplementedError

    def _prepare(self, session: WorkSession) -> Prepare | None:
        """What comes before the videos."""
        return None

    def _fps(self) -> int:
        """Frames per second of the files."""
        raise NotImplementedError

    def _prompts(self) -> Prompts:
        prompts = read_prompts(Path(self.prompts).expanduser(), self.prompt_key, self.prompt_limit)
        if prompts.repeated:
            logger.warning(
                "prompts: %d entries of %s repeat a prompt and are made once", prompts.repeated, self.prompts
            )
        if prompts.limited:
            logger.info("prompts: %d prompts of %s are left out by prompt_limit", prompts.limited, self.prompts)
        return prompts

    def _count(self, prompts: Prompts, text: str) -> int:
        counts = self.videos_per_prompt
        if isinstance(counts, int):
            return counts
        default = counts.get(_DEFAULT, _VBENCH_COUNT)
        return max((counts.get(name, default) for name in prompts.dimensions[text]), default=default)


def _note(artifacts: Path, output: Path, made: Sequence[VideoUnit], done: Mapping[str, Record]) -> None:
    """Says which video is which; paths start at the file that says so, as in data sets."""
    start = os.path.relpath(output, artifacts)
    rows = (
        {
            "videos": [os.path.join(start, unit.file)],
            "text": unit.prompt,
            "file": unit.file,
            "index": unit.index,
            "seed": unit.seed,
            "frames": done[unit.file].frames,
            "seconds": done[unit.file].seconds,
            "sha256": done[unit.file].sha256,
        }
        for unit in made
    )
    write_rows(artifacts / "videos.jsonl", rows)


def _by_prompt(prompts: Prompts) -> Any:
    places = {text: place for place, text in enumerate(prompts.texts)}
    return lambda unit: (places[unit.prompt], unit.index)


def _to_compare(path: str | None, units: Sequence[VideoUnit]) -> Mapping[str, Path] | None:
    """Earlier videos by file; None where there is nothing to compare with.

    Raises:
        UserError: there is no such folder, or none of its files has the name of a video.
    """
    if path is None:
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"compare_with: there is no folder {folder}")
    found = {unit.file: folder / unit.file for unit in units if (folder / unit.file).is_file()}
    if not found:
        raise UserError(
            f"compare_with: no file of {folder} is named like one of the videos to be made, e.g. {units[0].file!r} "
            f"(give a folder of videos of the same prompts)"
        )
    return found


def _folds_case(folder: Path) -> bool:
    """Whether names that differ in case are one file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".tmp-case-") as file:
        path = Path(file.name)
        return path.with_name(path.name.upper()).exists()


def _show(
    artifacts: Path,
    folder: Path,
    prompts: Prompts,
    made: Sequence[VideoUnit],
    earlier: Mapping[str, Path] | None,
) -> None:
    """Writes the contact sheet and the previews."""
    from raysandbox.executors._video.generation.contact_sheet import overview

    of_prompt: dict[str, list[str]] = {text: [] for text in prompts.texts}
    for unit in made:
        of_prompt[unit.prompt].append(unit.file)
    before = None if earlier is None else [[earlier.get(file) for file in files] for files in of_prompt.values()]
    overview(artifacts, [(text, [folder / file for file in files]) for text, files in of_prompt.items()], before)
