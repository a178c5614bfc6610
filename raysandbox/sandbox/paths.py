"""Where the paths of a configuration are: iterations, cluster jobs, `RAYSANDBOX_ROOT`."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from raysandbox.recipe.inputs import shard_pattern
from raysandbox.sandbox.drafts import same_path, spellings, upwards

__all__ = ["PathMap", "first_around", "is_inside", "output_root", "standing", "submitted_note"]

_ROOT_VARIABLE = "RAYSANDBOX_ROOT"
_WORK_DIR = "<work_dir>"
_LARGE_BYTES = 100_000_000
_MOST_FILES = 50_000  # of a submitted folder: a look must not take long
_T = TypeVar("_T")


def output_root(in_cluster_job: bool) -> Path | None:
    """Folder that relative outputs start at, or None for the current directory.

    A cluster job runs in a temporary copy of the submitted folder: what is written there is lost.
    """
    if not in_cluster_job:
        return None
    return Path(os.environ.get(_ROOT_VARIABLE) or Path.home() / "raysandbox").absolute()


def submitted_note(folder: Path) -> str | None:
    """What to say of a large folder that was submitted: every node that gets work fetches all of it.

    Returns:
        its size and its largest parts; None where it is small.
    """
    sizes: dict[str, int] = {}
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    for path in itertools.islice(files, _MOST_FILES):
        with contextlib.suppress(OSError):
            top = path.relative_to(folder).parts[0]
            sizes[top] = sizes.get(top, 0) + path.lstat().st_size
    total = sum(sizes.values())
    if total <= _LARGE_BYTES:
        return None
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    parts = ", ".join(f"{name} {sizes[name] / 1e6:,.0f} MB" for name in largest)
    return (
        f"the submitted folder holds {total / 1e6:,.0f} MB ({parts}), which every node fetches: leave out what the run "
        'does not read, by .gitignore or --runtime-env-json \'{"excludes": ["outputs", ".venv", ".git"]}\''
    )


def is_inside(path: str, folder: str) -> bool:
    """Whether a normalised path is the folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def first_around(path: str, folders: Mapping[str, _T]) -> _T | None:
    """What stands for the first of some folders that a path is or lies in; None where there is none.

    Args:
        path: in any spelling; one that leads there by links is looked for too.
        folders: normalised, first those that go first.
    """
    for spelling in spellings(path) if folders else ():
        around = [folder for folder in upwards(spelling) if folder in folders]
        if around:
            return folders[around[0] if len(around) == 1 else next(each for each in folders if each in around)]
    return None


def standing(path: str) -> list[str]:
    """What stands at a path: itself, or what its pattern matches, or the shards of an output; sorted."""
    path = os.path.expanduser(path)
    if os.path.exists(path):
        return [path]
    if "\0" in path:
        return []
    return sorted(glob.glob(path, recursive=True) or glob.glob(shard_pattern(path)))


@dataclass(frozen=True)
class PathMap:
    """Maps the paths of a configuration to where they really are.

    Attributes:
        work_dir: the run's folder.
        root: where relative outputs start, None for the current directory.
        written: declared outputs so far, by all their `spellings` → folder below work_dir of the
            iteration, trial or element that made them, "" for none.
        scopes: every such folder so far; a set, where there are many.
    """

    work_dir: Path
    root: Path | None = None
    written: Mapping[str, str] = field(default_factory=dict)
    scopes: Collection[str] = ()

    def scope(self, path: str) -> str | None:
        """Scope of the declared output that a path is or lies in; None for other paths."""
        return first_around(path, self.written) if path else None

    def locate(self, path: str) -> str:
        """Where a path is: an output of this or an earlier job, or a file of the user's."""
        scope = self.scope(path)
        path = os.path.expanduser(path)
        rooted = path if self.root is None or os.path.isabs(path) else str(self.root / path)
        if scope is None:
            return rooted if rooted != path and not standing(path) and standing(rooted) else path
        inside = self._inside(rooted) if scope else None
        if inside is None:
            return rooted
        if any(folder in self.scopes for folder in upwards(inside)):
            return same_path(rooted)  # what an earlier job gave: it is in its scope already
        return os.path.normpath(os.path.join(self._work, scope, inside))

    @cached_property
    def _work(self) -> str:
        return same_path(str(self.work_dir))

    def _inside(self, path: str) -> str | None:
        """A path from the run's folder on, whichever of them is spelled with links; None where it lies elsewhere."""
        for place in spellings(path):
            for work in spellings(self._work):
                if is_inside(place, work):
                    return os.path.relpath(place, work)
        return None

    def placeless(self, value: Any, inputs: Collection[str] | None = None) -> Any:
        """A configuration value whose paths inside the run's folder do not say where that is.

        Neither the work_dir nor the number of an iteration or trial is thereby a part of a job's key.

        Args:
            value: the value.
            inputs: what is read; where given, other texts count as paths only if they are or lie in outputs.
        """
        if isinstance(value, Mapping):
            return {key: self.placeless(item, inputs) for key, item in value.items()}
        if isinstance(value, list):
            return [self.placeless(item, inputs) for item in value]
        if not isinstance(value, str) or os.sep not in value or "\n" in value:
            return value
        if inputs is not None and value not in inputs and self.scope(value) is None:
            # A weighted mix: `0.3 a.jsonl 0.7 b.jsonl`; any other text stays as it is.
            return " ".join(self.placeless(token, inputs) for token in value.split(" ")) if " " in value else value
        return self._without_place(value)

    def _without_place(self, path: str) -> str:
        """A path less the run's folder; what comes after that folder stays as it is written."""
        ends = [end for end in range(len(path), 0, -1) if end == len(path) or path[end] == os.sep]
        for end in ends:  # the deepest folder first
            start = path[:end]
            rooted = start if self.root is None or start.startswith("~") else str(self.root / start)
            if self._is_scope(same_path(rooted)):
                return _WORK_DIR + path[end:]
        return path

    def _is_scope(self, path: str) -> bool:
        """Whether a normalised path is the run's folder, or that of an iteration, trial or element."""
        return path == self._work or (is_inside(path, self._work) and path[len(self._work) + 1 :] in self.scopes)

    def apply(self, value: Any, inputs: Collection[str] = ()) -> Any:
        """Maps the paths in a configuration: outputs wherever they stand, and the named inputs."""
        if isinstance(value, Mapping):
            return {key: self.apply(item, inputs) for key, item in value.items()}
        if isinstance(value, list):
            return [self.apply(item, inputs) for item in value]
        if not isinstance(value, str) or not value or "\n" in value:
            return value
        if " " in value and self.scope(value) is None:  # a weighted mix: `0.3 a.jsonl 0.7 b.jsonl`
            return " ".join(self.apply(token, inputs) for token in value.split(" "))
        return self.locate(value) if value in inputs or self.scope(value) is not None else value
