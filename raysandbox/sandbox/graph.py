"""Which jobs must wait for which: edges between the jobs of an iteration, from what each names and writes.

Order in the file decides the direction of an edge, never whether there is one. Where it is not known
what a job writes, it stands between all jobs before and all jobs after it.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raysandbox.sandbox.drafts import UNKNOWN, same_path, spellings, upwards

__all__ = ["Footprint", "JobGraph", "footprint", "job_graph"]

_BETWEEN_PATHS = re.compile(r"[^\w./~+@%-]+")
_DEEPEST = 40  # components of a path, from its end, that are looked at
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Footprint:
    """What a job has to do with paths, and with the artefacts of probes.

    Attributes:
        names: normalised paths that its configuration names anywhere, in the middle of a text too; like the
            others with where links lead from there.
        reads: those among them, or more, that it declares as inputs.
        writes: what it declares to write.
        texts: all strings of its configuration.
        written_as: `writes` as the configuration spells them.
        open: whether an earlier job decides what it writes.
    """

    names: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()
    written_as: frozenset[str] = frozenset()
    open: bool = False


@dataclass(frozen=True)
class JobGraph:
    """Edges between jobs, by their position in the order of the configuration.

    Attributes:
        after: for each job those that must have ended, without those that follow from others.
    """

    after: tuple[tuple[int, ...], ...]

    @property
    def is_chain(self) -> bool:
        """Whether only one job can ever run at a time."""
        return all(position - 1 in before for position, before in enumerate(self.after) if position)


_Numbers = defaultdict[str, set[int]]


def _numbers() -> _Numbers:
    return defaultdict(set)


@dataclass
class _Index:
    """Who writes and who names which path, so far; `below` a folder is what lies inside of it."""

    writers: _Numbers = field(default_factory=_numbers)
    namers: _Numbers = field(default_factory=_numbers)
    writers_below: _Numbers = field(default_factory=_numbers)
    namers_below: _Numbers = field(default_factory=_numbers)
    spelled: _Numbers = field(default_factory=_numbers)  # written paths of several parts, as they are spelled
    parts: _Numbers = field(default_factory=_numbers)  # of texts, as `_parts_of` cuts them
    odd: dict[str, int] = field(default_factory=dict)  # spellings that no text is cut into, and who writes there
    texts: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    everything: frozenset[str] = field(default_factory=lambda: frozenset({same_path("."), os.sep}))

    def before(self, job: Footprint) -> Iterator[int]:
        """Those so far that a job must wait for, some of them several times."""
        for path in job.names | job.reads:
            for folder in upwards(path):
                yield from self.writers.get(folder, ())
            if path in job.reads or path not in self.everything:
                yield from self.writers_below.get(path, ())
        for path in job.writes:
            for below in (self.writers_below, self.namers_below):
                yield from below.get(path, ())
            for folder in upwards(path):
                yield from self.writers.get(folder, ())
                yield from self.namers.get(folder, ())
        yield from self._spelled(job)

    def _spelled(self, job: Footprint) -> Iterator[int]:
        """By how paths are spelled, wherever they start: scripts may run in another folder."""
        for text in job.texts:
            for part in _parts_of(text):
                yield from self.spelled.get(part, ())
            yield from (number for path, number in self.odd.items() if path in text)
        for path in job.written_as:
            if _is_odd(path):
                yield from (number for number, texts in self.texts if any(path in text for text in texts))
            else:
                yield from self.parts.get(os.path.normpath(path), ())

    def add(self, number: int, job: Footprint) -> None:
        """Notes a job."""
        for path in job.writes:
            self._note(path, number, self.writers, self.writers_below)
        for path in job.names | job.reads:
            if path in job.reads or path not in self.everything:
                self._note(path, number, self.namers, self.namers_below)
        for path in job.written_as:
            if _is_odd(path):
                self.odd[path] = number
            elif os.sep in path:
                self.spelled[os.path.normpath(path)].add(number)
        self.texts.append((number, job.texts))
        for text in job.texts:
            for part in _parts_of(text):
                self.parts[part].add(number)

    def _note(self, path: str, number: int, exact: _Numbers, below: _Numbers) -> None:
        exact[path].add(number)
        for folder in upwards(os.path.dirname(path)):
            below[folder].add(number)


def job_graph(jobs: Sequence[Footprint], needs: Sequence[Iterable[int]]) -> JobGraph:
    """The edges between jobs.

    Args:
        jobs: what each names and writes, in the order of the configuration.
        needs: for each the positions of those whose outputs or artefacts it uses.
    """
    index = _Index()
    ancestors: list[int] = []  # as bits
    after: list[tuple[int, ...]] = []
    last_open: int | None = None
    for number, (job, needed) in enumerate(zip(jobs, needs, strict=True)):
        before = {*index.before(job), *needed}
        if job.open:
            before |= set(range(number))
        elif last_open is not None:
            before.add(last_open)
        if job.open:
            last_open = number
        index.add(number, job)
        implied = 0
        for other in before:
            implied |= ancestors[other]
        after.append(tuple(sorted(other for other in before if not implied >> other & 1)))
        ancestors.append(implied | sum(1 << other for other in before))
    return JobGraph(tuple(after))


def footprint(
    parts: Iterable[Any],
    reads: Iterable[str],
    writes: Iterable[str],
    *,
    uses: Iterable[str] = (),
    makes: Iterable[str] = (),
    is_open: bool = False,
) -> Footprint:
    """What a job has to do with paths.

    Args:
        parts: its configurations.
        reads: what it declares to read.
        writes: what it declares to write.
        uses: other things that it uses, by names that are no paths.
        makes: other things that it makes, which replace earlier ones of the same name.
        is_open: whether an earlier job decides what it reads or writes.
    """
    texts = tuple(_texts([*parts]))
    writes = [path for path in writes if path]
    written = {spelling for path in writes if path != UNKNOWN for spelling in spellings(path)}
    names = {path for text in texts for path in _paths_in(text)}
    return Footprint(
        frozenset({*names, *(f"\0{name}" for name in uses)}),
        frozenset(spelling for path in reads if path != UNKNOWN for spelling in _static(path)),
        frozenset({*written, *(f"\0{name}" for name in makes)}),
        texts,
        frozenset(path for path in writes if path != UNKNOWN),
        is_open or UNKNOWN in writes,
    )


def _texts(value: Any) -> Iterator[str]:
    """All strings in a configuration, keys too."""
    if isinstance(value, Mapping):
        yield from _texts(list(value))
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and value and value != UNKNOWN:
        yield value


def _paths_in(text: str) -> Iterator[str]:
    """Normalised paths that a text is or may contain."""
    if "\n" not in text:
        yield from _static(text)
    for piece in _pieces(text):
        yield from spellings(piece)


def _pieces(text: str) -> Iterator[str]:
    yield from (piece for piece in _BETWEEN_PATHS.split(text) if piece.strip("."))


def _static(path: str) -> tuple[str, ...]:
    """Spellings of a path; of a pattern those of the folder that it looks in."""
    found = _PATTERN.search(path)
    return spellings(path if found is None else os.path.dirname(path[: found.start()]) or ".")


def _is_odd(path: str) -> bool:
    """Whether a path has characters at which texts are cut, such as spaces."""
    return _BETWEEN_PATHS.search(path) is not None


def _parts_of(text: str) -> Iterator[str]:
    """Every run of path components in a text: `a/b` of `/home/x/a/b/c.txt`, wherever that folder is."""
    for piece in _pieces(text):
        components = os.path.normpath(piece).split(os.sep)[-_DEEPEST:]
        for start in range(len(components)):
            for end in range(start + 2, len(components) + 1):
                yield os.sep.join(components[start:end])
