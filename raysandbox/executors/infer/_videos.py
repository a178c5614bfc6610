"""What all inferences of videos share: prompts → units → workers → videos, records, and what to look at."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from raysandbox.core.component import InputPath, OutputPath
from raysandbox.core.errors import MissingExtraError, UserError, did_you_mean
from raysandbox.core.files import remove
from raysandbox.core.keys import code_version, library_versions
from raysandbox.core.runner import WorkSession
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS
from raysandbox.executors._video.clips import encode_mp4, require_av
from raysandbox.executors._video.generation.generating import Generation, GenerationWork, Prepare, VideoMaker
from raysandbox.executors._video.generation.prompts import Prompts, read_prompts
from raysandbox.executors._video.generation.records import Record
from raysandbox.executors._video.generation.units import VideoUnit, units_of
from raysandbox.executors.base import ModelInference
from raysandbox.executors.infer._rows import write_rows

__all__ = ["VideoInference", "refuse_own_folder"]

logger = logging.getLogger(__name__)

_DEFAULT = "default"
_OWN_VIDEOS = "generated_videos"
_VBENCH_COUNT = 5  # what VBench scores of a prompt
_DIMENSIONS = frozenset(DIMENSIONS)
_SAME_FOLDER = (
    "compare_with: is the output_dir, whose videos are replaced: give the folder of other videos, or another output_dir"
)


class VideoInference(ModelInference):
    """Generates videos of prompts: a queue over the job's workers, resumable to the video."""

    # Its records say which of its videos are done and wanted, in every attempt anew.
    kept_artifacts: ClassVar[frozenset[str]] = frozenset({_OWN_VIDEOS})

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
    stall_timeout_s: float | None = Field(
        None,
        gt=0,
        description="after how many seconds at one video, or at loading the model, a worker counts as lost and another "
        "takes its place; null: never, it is only said that it takes long",
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

    @model_validator(mode="after")
    def _compares_with_others(self) -> VideoInference:
        refuse_own_folder(self.compare_with, self.output_dir)
        return self

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
        folder = output or session.artifacts.absolute() / _OWN_VIDEOS
        counts = {text: self._count(prompts, text) for text in prompts.texts}
        units = units_of(counts, self.seed, [_writing(), self._identity(session)], lambda: _folds_case(folder))
        earlier = _to_compare(self.compare_with, folder, units)
        generation = Generation(
            units,
            GenerationWork(self._maker(session), folder, (session.cache_dir / "videos").absolute(), self._fps()),
            self.max_failed,
            f"generating {len(units)} videos",
            self._prepare(session),
            self.stall_timeout_s,
        )
        done = generation.run(session)
        made = sorted((unit for unit in units if unit.file in done), key=_by_prompt(prompts))
        if self.contact_sheet:
            _show(session.artifacts, folder, prompts, made, earlier)
        own = session.artifacts / _OWN_VIDEOS
        _note(session.artifacts, output or own, made, done)
        if self.output_dir is None:
            return str(own)
        if own.is_dir() and not own.samefile(folder):
            remove(own)  # of an attempt with a configuration that named no folder
        return self.output_dir

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
        self._check_dimensions(prompts)
        return prompts

    def _check_dimensions(self, prompts: Prompts) -> None:
        """Counts of dimensions that the prompts do not have are without effect.

        Raises:
            UserError: such a name is misspelt, or the file names no dimensions at all.
        """
        counts = self.videos_per_prompt
        idle = [] if isinstance(counts, int) else [n for n in counts if n != _DEFAULT and n not in prompts.named]
        for name in idle:
            if not prompts.named:
                raise UserError(
                    f"videos_per_prompt: {self.prompts} names no dimensions, so that '{name}' has no meaning "
                    f"(give one number, or prompts with a column 'dimension')"
                )
            if name not in _DIMENSIONS:
                known = sorted(prompts.named | _DIMENSIONS)
                hint = did_you_mean(name, known) or f"they are {', '.join(sorted(prompts.named))}"
                raise UserError(f"videos_per_prompt: no prompt of {self.prompts} has the dimension '{name}'; {hint}")
        if idle:
            logger.warning("videos_per_prompt: no prompt of %s has the dimension %s", self.prompts, ", ".join(idle))

    def _count(self, prompts: Prompts, text: str) -> int:
        counts = self.videos_per_prompt
        if isinstance(counts, int):
            return counts
        default = counts.get(_DEFAULT, _VBENCH_COUNT)
        return max((counts.get(name, default) for name in prompts.dimensions[text]), default=default)


def refuse_own_folder(compare_with: str | None, output_dir: str | None) -> None:
    """Refuses a comparison of videos with themselves; the folders need not be there yet.

    Raises:
        ValueError: the folders are one.
    """
    if compare_with and output_dir:
        earlier, own = (os.path.realpath(os.path.expanduser(path)) for path in (compare_with, output_dir))
        if earlier == own:
            raise ValueError(_SAME_FOLDER)


def _writing() -> Any:
    """What the bytes of a file depend on beside its frames."""
    return [code_version(encode_mp4), library_versions("av")]


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


def _to_compare(path: str | None, own: Path, units: Sequence[VideoUnit]) -> Mapping[str, Path] | None:
    """Earlier videos by file; None where there is nothing to compare with.

    Raises:
        UserError: there is no such folder, it is the videos' own, or none of its files has the name of a video.
    """
    if path is None:
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"compare_with: there is no folder {folder}")
    if own.is_dir() and folder.samefile(own):
        raise UserError(_SAME_FOLDER)
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
