"""Where the paths of a configuration are: iterations, cluster jobs, `RAYSANDBOX_ROOT`."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.recipe.inputs import shard_pattern
from raysandbox.sandbox.drafts import same_path

__all__ = ["PathMap", "is_inside", "output_root", "standing"]

_ROOT_VARIABLE = "RAYSANDBOX_ROOT"
_WORK_DIR = "<work_dir>/"


def output_root(in_cluster_job: bool) -> Path | None:
    """Folder that relative outputs start at, or None for the current directory.

    A cluster job runs in a temporary copy of the submitted folder: what is written there is lost.
    """
    if not in_cluster_job:
        return None
    return Path(os.environ.get(_ROOT_VARIABLE) or Path.home() / "raysandbox").absolute()


def is_inside(path: str, folder: str) -> bool:
    """Whether a normalised path is the folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def standing(path: str) -> list[str]:
    """What stands at a path: itself, or what its pattern matches, or the shards of an output; sorted."""
    path = os.path.expanduser(path)
    if os.path.exists(path):
        return [path]
    return sorted(glob.glob(path, recursive=True) or glob.glob(shard_pattern(path)))


@dataclass(frozen=True)
class PathMap:
    """Maps the paths of a configuration to where they really are.

    Attributes:
        work_dir: the run's folder.
        root: where relative outputs start, None for the current directory.
        written: declared outputs so far, normalised → folder below work_dir of the iteration,
            trial or element that made them, "" for none.
        scopes: every such folder so far.
    """

    work_dir: Path
    root: Path | None = None
    written: Mapping[str, str] = field(default_factory=dict)
    scopes: Collection[str] = ()

    def scope(self, path: str) -> str | None:
        """Scope of the declared output that a path is or lies in; None for other paths."""
        normal = same_path(path) if path else ""
        return next((scope for folder, scope in self.written.items() if is_inside(normal, folder)), None)

    def locate(self, path: str) -> str:
        """Where a path is: an output of this or an earlier job, or a file of the user's."""
        scope = self.scope(path)
        path = os.path.expanduser(path)
        rooted = path if self.root is None or os.path.isabs(path) else str(self.root / path)
        if scope is None:
            return rooted if rooted != path and not standing(path) and standing(rooted) else path
        absolute, work = same_path(rooted), same_path(str(self.work_dir))
        if scope and is_inside(absolute, work):
            return os.path.join(work, scope, os.path.relpath(absolute, work))
        return rooted

    def placeless(self, value: Any) -> Any:
        """A configuration value whose paths inside the run's folder do not say where that is.

        Neither the work_dir nor the number of an iteration or trial is thereby a part of a job's key.
        """
        if isinstance(value, Mapping):
            return {key: self.placeless(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.placeless(item) for item in value]
        if isinstance(value, str) and os.sep in value and "\n" not in value:
            work = same_path(str(self.work_dir))
            path = same_path(value if self.root is None or value.startswith("~") else str(self.root / value))
            for scope in sorted({*self.scopes, ""}, key=len, reverse=True):
                folder = os.path.join(work, scope) if scope else work
                if is_inside(path, folder):
                    return _WORK_DIR + os.path.relpath(path, folder)
        return value

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
