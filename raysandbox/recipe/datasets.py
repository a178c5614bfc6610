"""Data sets as their makers name them: saved on disk, in a hub's layout, by a hub's id.

Whatever names a data set ends as the list of its files; rows are read from these in pieces, as from
any other files. No second copy of the data is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raysandbox.core.errors import ConfigError, MissingExtraError, Problem, did_you_mean
from raysandbox.core.names import is_remote, local_name
from raysandbox.recipe.inputs import InputFile, find_files
from raysandbox.recipe.mixture import Window, parse_split
from raysandbox.recipe.schema import DatasetPart

__all__ = ["Located", "locate"]

# Builders of the `datasets` package whose files we read, and their format here.
_FORMATS = {"json": "jsonl", "parquet": "parquet", "csv": "csv", "arrow": "arrow"}


@dataclass(frozen=True)
class Located:
    """The files of one part of a data set.

    Attributes:
        files: in order.
        warnings: what the user should know.
        window: which of their rows belong to it; None for all.
    """

    files: Sequence[InputFile]
    warnings: Sequence[str] = ()
    window: Window | None = None


def locate(part: DatasetPart, suffixes: frozenset[str]) -> Located:
    """Finds the files of a part.

    Args:
        part: an element of `dataset.configs`, or of `dataset_path`.
        suffixes: suffixes of the files to read in folders.

    Raises:
        ConfigError: there is nothing, or nothing that can be read.
        MissingExtraError: the package that knows the hub is not installed.
    """
    splits, window = parse_split(part.split) if part.split else ((), None)
    if part.limit is not None:
        window = replace(window or Window(), limit=part.limit)
    path = part.path if is_remote(part.path) else os.path.expanduser(local_name(part.path))
    saved = _saved(Path(path), splits)
    if saved is not None:
        return Located([file for folder in saved for file in _saved_files(folder)], window=window)
    if part.on_hub:
        return Located(_hub_files(part, path, splits), window=window)
    if splits:
        raise _problem(part, "split", f"{part.path} has no splits", "leave split out, or name source: huggingface")
    return Located(*find_files(part.path, suffixes), window)


def _saved(folder: Path, splits: Sequence[str]) -> list[Path] | None:
    """The folders of a data set that `save_to_disk` wrote, one per split; None for anything else."""
    index = folder / "dataset_dict.json"
    if not index.is_file():
        is_saved = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
        return [folder] if is_saved else None
    known = json.loads(index.read_text(encoding="utf-8"))["splits"]
    return [folder / name for name in _chosen(str(folder), splits, known)]


def _saved_files(folder: Path) -> list[InputFile]:
    names = [
        item["filename"] for item in json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
    ]
    return [file for name in names for file in find_files(str(folder / name), frozenset())[0]]


def _chosen(path: str, splits: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """The wanted splits; without a wish the only one."""
    if not splits and len(known) > 1:
        raise _split_problem(f"{path} has the splits {', '.join(known)}", "set split")
    for name in splits:
        if name not in known:
            hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
            raise _split_problem(f"{path} has no split '{name}'; {hint}", "correct split")
    return splits or known


def _hub_files(part: DatasetPart, path: str, splits: Sequence[str]) -> list[InputFile]:
    """The files of a data set in a hub's layout."""
    if part.source == "modelscope" and not os.path.isdir(path):
        path = _modelscope_folder(part)
    builder = _builder(part, path)
    if builder.name not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise _problem(part, "path", f"{part.path} holds {builder.name} data", f"this version reads {known}")
    by_split: Mapping[str, Sequence[str]] = {str(name): urls for name, urls in builder.config.data_files.items()}
    urls = [url for name in _chosen(part.path, splits, list(by_split)) for url in by_split[name]]
    return [_hub_file(part, str(url), _FORMATS[builder.name]) for url in urls]


def _hub_file(part: DatasetPart, url: str, format: str) -> InputFile:
    """A file of a hub, in the format that its suffix or else its data set's says."""
    suffix = os.path.splitext(url)[1].lower()
    (file,), _ = find_files(url, frozenset({suffix}))
    return replace(file, format=format) if file.format == "text" else file


def _builder(part: DatasetPart, path: str) -> Any:
    """What the `datasets` package knows of a data set; without a network, of its copy on this machine."""
    load = _import_datasets(part).load_dataset_builder
    options = {"name": part.name, "data_dir": part.data_dir, "data_files": part.data_files}
    try:
        builder = load(path, revision=part.revision, **options)
        if getattr(builder.config, "data_files", None):
            return builder
        return load(_downloaded(part), **options)
    except ConnectionError as error:
        try:
            return load(_downloaded(part), **options)
        except (OSError, ValueError):
            raise _unreachable(part, error) from None
    except (OSError, ValueError) as error:
        raise _unreachable(part, error) from None


def _downloaded(part: DatasetPart) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(part.path, repo_type="dataset", revision=part.revision, local_files_only=True)


def _modelscope_folder(part: DatasetPart) -> str:
    """Fetches a data set of ModelScope into its cache, or finds it there."""
    try:
        from modelscope.hub.snapshot_download import dataset_snapshot_download
    except ImportError:
        raise MissingExtraError("modelscope", "modelscope", f"the data set '{part.path}' of ModelScope") from None
    try:
        return dataset_snapshot_download(part.path, revision=part.revision)
    except (OSError, ValueError) as error:
        raise _unreachable(part, error) from None


def _import_datasets(part: DatasetPart) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "datasets", f"the data set '{part.path}'") from None
    return datasets


def _unreachable(part: DatasetPart, error: Exception) -> ConfigError:
    reason = str(error).strip().split("\n")[0]
    fix = "correct its name, connect to the network, or name a folder that holds it"
    return _problem(part, "path", f"the data set '{part.path}' of {part.source} cannot be found: {reason}", fix)


def _split_problem(message: str, fix: str) -> ConfigError:
    return ConfigError([Problem(None, None, "dataset.configs.split", message, fix)])


def _problem(part: DatasetPart, key: str, message: str, fix: str) -> ConfigError:
    return ConfigError([Problem(None, None, f"dataset.configs.{key}", message, fix)])
