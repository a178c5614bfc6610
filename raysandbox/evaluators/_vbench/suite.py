"""Which videos belong to which dimension: the suite's prompts and the files named after them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.names import safe_stem
from raysandbox.evaluators._vbench.dimensions import DIMENSIONS

__all__ = ["VIDEOS_PER_PROMPT", "Asked", "Clip", "Prompt", "custom_clips", "read_prompts", "standard_clips"]

logger = logging.getLogger(__name__)

VIDEOS_PER_PROMPT = 5
_SUFFIXES = (".mp4", ".gif")
# Of files that could be taken for videos to score.
_OTHERS = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
    | {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
)
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Prompt:
    """An entry of a prompt information file.

    Attributes:
        text: the prompt, `prompt_en`.
        dimensions: those that its videos are scored in.
        auxiliary: what a dimension must know about it, by dimension.
    """

    text: str
    dimensions: tuple[str, ...]
    auxiliary: Mapping[str, Any]


@dataclass(frozen=True)
class Clip:
    """A video to be scored in one dimension.

    Attributes:
        path: the file.
        prompt: what it was made from.
        auxiliary: what the dimension must know about the prompt, or None.
    """

    path: Path
    prompt: str
    auxiliary: Any = None


@dataclass(frozen=True)
class Asked:
    """What of a suite is scored.

    Attributes:
        dimensions: in these.
        prompts: videos of these.
        source: where the prompts are from, for messages.
    """

    dimensions: Sequence[str]
    prompts: Sequence[Prompt]
    source: str

    def require(self, texts: Collection[str], given: str) -> None:
        """Whether videos of the texts alone can be scored in all dimensions.

        Args:
            texts: what videos are to be made of.
            given: where the texts are from, for messages.

        Raises:
            JobFailed: a dimension has none of its prompts among them, or lacks what it must know about one.
        """
        stems = {safe_stem(text) for text in texts}
        for dimension in self.dimensions:
            found = [
                prompt
                for prompt in self.prompts
                if dimension in prompt.dimensions and (prompt.text in texts or safe_stem(prompt.text) in stems)
            ]
            if not found:
                raise JobFailed(
                    f"{given} holds no prompt of {dimension} in {self.source}, so that its videos could not be "
                    f"scored: name prompts of the suite, or remove {dimension} from dimension_list"
                )
            for prompt in found:
                _auxiliary(prompt, dimension, self.source)


def read_prompts(path: Path) -> list[Prompt]:
    """Reads a prompt information file, a list of `{"prompt_en", "dimension", "auxiliary_info"}`.

    Raises:
        UserError: there is none, or it is not such a list.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [_prompt(entry) for entry in content]
    except OSError as error:
        raise UserError(f"full_json_dir: {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f'full_json_dir: {path} is not a list of {{"prompt_en", "dimension": [...], "auxiliary_info"}} '
            f"in JSON ({type(error).__name__}: {error})"
        ) from error


def _prompt(entry: Mapping[str, Any]) -> Prompt:
    named = entry["dimension"]
    return Prompt(
        str(entry["prompt_en"]),
        tuple([named] if isinstance(named, str) else map(str, named)),
        dict(entry.get("auxiliary_info") or {}),
    )


def standard_clips(
    videos_path: Path, prompts: Sequence[Prompt], dimensions: Sequence[str], source: str
) -> dict[str, list[Clip]]:
    """The videos `{prompt}-{0…4}` of each dimension, in the order of the prompts.

    Videos that belong to no prompt, files that VBench does not read, and prompts without all their
    videos are named in warnings.

    Args:
        videos_path: folder of the videos.
        prompts: of the suite.
        dimensions: those to score.
        source: where the prompts are from, for messages.

    Raises:
        JobFailed: there are no videos, or none of a dimension.
    """
    videos = _videos(videos_path)
    files = {path.stem + path.suffix.lower(): path for path in videos}
    wanted: dict[str, list[Clip]] = {dimension: [] for dimension in dimensions}
    missing: dict[str, int] = {}
    for prompt in prompts:
        scored = [dimension for dimension in dimensions if dimension in prompt.dimensions]
        found = list(_files_of(prompt.text, files))
        if scored and len(found) < VIDEOS_PER_PROMPT:
            missing[prompt.text] = VIDEOS_PER_PROMPT - len(found)
        for dimension in scored if found else ():
            wanted[dimension] += [Clip(path, prompt.text, _auxiliary(prompt, dimension, source)) for path in found]
    _warn_strays(videos, files, prompts, source)
    for dimension, clips in wanted.items():
        if not clips:
            raise JobFailed(
                f"{dimension} has no videos in {videos_path}: none is named after one of its prompts in {source}, "
                f"as PROMPT-0.mp4 to PROMPT-{VIDEOS_PER_PROMPT - 1}.mp4; remove it from dimension_list, or make them"
            )
    if missing:
        bare = [text for text, count in missing.items() if count == VIDEOS_PER_PROMPT]
        logger.warning(
            "%d videos of the suite are missing in %s; %d prompts have none%s: the scores are not comparable "
            "with the leaderboard's",
            sum(missing.values()),
            videos_path,
            len(bare),
            f" ({_some(bare)})" if bare else "",
        )
    return wanted


def custom_clips(videos_path: Path, dimensions: Sequence[str]) -> dict[str, list[Clip]]:
    """Every video of a folder, or the one file, in every dimension; the prompt is the file's name less `-NUMBER`.

    Files that VBench does not read are named in a warning.

    Raises:
        JobFailed: there are no videos.
    """
    found = [videos_path] if videos_path.is_file() else _videos(videos_path)
    clips = [Clip(path, re.sub(r"-\d+$", "", path.stem)) for path in found]
    return {dimension: list(clips) for dimension in dimensions}


def _files_of(prompt: str, files: Mapping[str, Path]) -> Iterator[Path]:
    """The videos of a prompt, one per index; files are by their names with the suffix in small letters."""
    for index in range(VIDEOS_PER_PROMPT):
        stems = (prompt, safe_stem(prompt))  # the second where a generation had to change the name
        names = (f"{stem}-{index}{suffix}" for stem in stems for suffix in _SUFFIXES)
        yield from [files[name] for name in names if name in files][:1]


def _auxiliary(prompt: Prompt, dimension: str, source: str) -> Any:
    found = prompt.auxiliary.get(dimension)
    if found is None and DIMENSIONS[dimension].needs_suite:
        raise JobFailed(f"{source}: the prompt '{prompt.text}' has no auxiliary_info for {dimension}")
    return found


def _videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise JobFailed(f"videos_path: there is no folder {folder}")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in files if path.suffix.lower() in _SUFFIXES]
    others = [path.name for path in files if path.suffix.lower() in _OTHERS]
    if not found:
        what = f"; VBench does not read {_some(others)}: convert them" if others else ""
        raise JobFailed(f"videos_path: {folder} holds no videos ({', '.join(_SUFFIXES)}){what}")
    if others:
        logger.warning(
            "%d files of %s are not scored (%s): videos are %s",
            len(others),
            folder,
            _some(others),
            ", ".join(_SUFFIXES),
        )
    return found


def _warn_strays(videos: Sequence[Path], files: Mapping[str, Path], prompts: Sequence[Prompt], source: str) -> None:
    known = {path.name for prompt in prompts for path in _files_of(prompt.text, files)}
    strays = [path.name for path in videos if path.name not in known]
    if strays:
        logger.warning(
            "%d of %d videos belong to no prompt of %s and are not scored (%s): they are named PROMPT-0 to PROMPT-%d",
            len(strays),
            len(videos),
            source,
            _some(strays),
            VIDEOS_PER_PROMPT - 1,
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
