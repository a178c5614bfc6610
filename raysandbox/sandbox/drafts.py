"""The configuration of a job put together: side file, `local`, and values of earlier jobs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from raysandbox.config.documents import Document, KeyPath, load_document, show_path
from raysandbox.config.dotted import set_dotted
from raysandbox.config.schema import JobEntry
from raysandbox.core.errors import ConfigError, Problem

__all__ = ["UNKNOWN", "Draft", "Drafts", "Part", "put_together", "same_path", "spellings", "strings", "upwards"]

Part = Literal["dj_configs", "extra_configs"]
_PARTS: tuple[Part, Part] = ("dj_configs", "extra_configs")

UNKNOWN = "<known-when-it-runs>"  # one word: a path to those who split a mix


def same_path(path: str) -> str:
    """One spelling for all spellings of a path."""
    return os.path.abspath(os.path.expanduser(path))


def spellings(path: str) -> tuple[str, ...]:
    """A path as `same_path` spells it, and where links lead from there where that is another one."""
    normal = same_path(path)
    try:
        # A bare name is in the current directory, whose spelling has no links: the name alone may be one.
        real = os.path.realpath(normal) if os.sep in path or os.path.islink(normal) else normal
    except ValueError:  # a NUL: no file is called so
        real = normal
    return (normal,) if real == normal else (normal, real)


def upwards(path: str) -> Iterator[str]:
    """A normalised path and the folders that it lies in."""
    yield path
    while (parent := os.path.dirname(path)) not in (path, ""):
        yield parent
        path = parent


def strings(value: Any) -> Iterator[str]:
    """The single-line strings in a configuration: any may be the path of an earlier output."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str) and value and "\n" not in value:
        yield value


@dataclass
class Draft:
    """One of a job's two configurations, with the place that each key comes from.

    Attributes:
        data: the configuration.
        document: the file it comes from.
        base: where it stands in that file.
        overridden: keys set by `local` or `input`, and where in the main document these stand.
        unknown: keys whose value an earlier job will give.
        main: the main document.
        side_file: path of the side file, if there is one.
    """

    data: dict[str, Any]
    document: Document
    base: KeyPath
    main: Document
    side_file: str | None = None
    overridden: dict[KeyPath, KeyPath] = field(default_factory=dict)
    unknown: set[KeyPath] = field(default_factory=set)

    def problem(self, path: KeyPath, message: str, fix: str = "", **more: Any) -> Problem:
        """A finding at a key, located where the key was given."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overridden:
                where = self.main.problem(self.overridden[path[:length]], message, fix, **more)
                return where
        if self.side_file is None:
            return self.main.problem((*self.base, *path), message, fix, **more)
        line = self.document.line((*self.base, *path))
        return Problem(self.document.source, line, show_path(path), message, fix, **more)

    def is_unknown(self, path: KeyPath) -> bool:
        """Whether a key's value, or a part of it, is not known yet."""
        return any(key[: len(path)] == path or path[: len(key)] == key for key in self.unknown)


@dataclass
class Drafts:
    """Both configurations of a job; None where the job has none or it is not known yet.

    Attributes:
        deferred: side files that an earlier job will write and of whose content nothing is known.
        received: values that `input` brought from earlier jobs.
    """

    parts: dict[Part, Draft | None]
    deferred: dict[Part, str]
    problems: list[Problem]
    received: list[Any] = field(default_factory=list)

    @property
    def recipe(self) -> Draft | None:
        """The data recipe."""
        return self.parts["dj_configs"]

    @property
    def extra(self) -> Draft | None:
        """The other configuration."""
        return self.parts["extra_configs"]


def put_together(
    entry: JobEntry,
    main: Document,
    lookup: Callable[[str], Any],
    *,
    open_side: Callable[[str], Path | Mapping[str, Any] | None] = Path,
    updates: Mapping[str, Any] | None = None,
) -> Drafts:
    """Loads side files and applies `local`, then `updates`, then `input`.

    Args:
        entry: the job.
        main: the document that holds it.
        lookup: value of a reference; `UNKNOWN` when an earlier job will give it.
        open_side: where a side file is: a path, its predicted content, or None when nothing is
            known of it before an earlier job has written it.
        updates: values of `iter_updater`, by `dj_configs.…` or `extra_configs.…`.
    """
    drafts = Drafts({"dj_configs": None, "extra_configs": None}, {}, [])
    for part in _PARTS:
        try:
            drafts.parts[part] = _load_part(entry, part, main, open_side, drafts.deferred)
        except ConfigError as error:
            drafts.problems += [p if p.line else _at_job(main, entry, part, p) for p in error.problems]
            drafts.deferred[part] = str(getattr(entry.config, part))
    settings = [("local", entry.config.local, False), ("iter_updater", updates or {}, False)]
    settings.append(("input", entry.config.input, True))
    for origin, values, is_reference in settings:
        for key, value in values.items():
            where = (*entry.path, origin, key)
            if is_reference:
                value = lookup(value)
                drafts.received.append(value)
            problem = _apply(drafts, key, value, where, main)
            if problem is not None:
                drafts.problems.append(problem)
    return drafts


def _load_part(
    entry: JobEntry,
    part: Part,
    main: Document,
    open_side: Callable[[str], Path | Mapping[str, Any] | None],
    deferred: dict[Part, str],
) -> Draft | None:
    value = getattr(entry.config, part)
    if value is None:
        return None
    if isinstance(value, dict):
        return Draft(copy.deepcopy(value), main, (*entry.path, part), main)
    found = open_side(value)
    if found is None:
        deferred[part] = value
        return None
    document = load_document(found, value) if isinstance(found, Path) else Document(copy.deepcopy(dict(found)), value)
    document = document.placed(main.places)
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        raise ConfigError(
            [document.problem((), "is not a mapping", "see the component's example with `raysandbox ls`")]
        )
    return Draft(data, document, (), main, side_file=value)


def _at_job(main: Document, entry: JobEntry, part: Part, problem: Problem) -> Problem:
    return main.problem((*entry.path, part), f"{problem.file} {problem.message}", problem.fix)


def _apply(drafts: Drafts, key: str, value: Any, where: KeyPath, main: Document) -> Problem | None:
    part, _, path = key.partition(".")
    if part not in _PARTS or not path:
        return main.problem(where, "does not start with dj_configs. or extra_configs.", f"write extra_configs.{key}")
    if part in drafts.deferred:
        return None
    draft = drafts.parts[part]
    if draft is None:
        draft = drafts.parts[part] = Draft({}, main, (*where[:-2], part), main)
    try:
        reached = set_dotted(draft.data, path, copy.deepcopy(value))
    except KeyError as error:
        return main.problem(where, f"leads nowhere at '{error.args[0]}'", "check the key")
    draft.overridden[reached] = where
    if value == UNKNOWN:
        draft.unknown.add(reached)
    return None
