"""Finished jobs that trials and runs share: kept by content below `cache_dir`, taken by hard links.

An entry is a folder named by the job's key. It holds the job's artefacts, what it wrote, and a record
with the digests of all files; it appears by one rename. A file that somebody changes in place through
one of its links no longer has its digest: the entry is then removed and the job runs again.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysandbox.core.files import remove
from raysandbox.core.keys import DigestMemo
from raysandbox.core.locks import KeyLocks
from raysandbox.recipe.inputs import shard_pattern, split_name
from raysandbox.sandbox.contents import holds_text
from raysandbox.sandbox.drafts import same_path, strings
from raysandbox.sandbox.paths import is_inside, standing

__all__ = ["LIMIT_BYTES", "SharedResults", "rebase"]

LIMIT_BYTES = 50 << 30
_VERSION = 2
_RECORD, _ARTIFACTS, _WRITES = "entry.json", "artifacts", "writes"
_ABANDONED_S = 86_400.0  # age of an entry that was begun and never finished
_LOG = ".log"  # says where something was done; nobody takes paths from it
_TRAVELS = ".rows"  # hidden files with this ending belong to the content of the file beside them

logger = logging.getLogger(__name__)


class _NotKeptError(Exception):
    """Why a result serves nobody else."""


@dataclass(frozen=True)
class _Record:
    """What is known of an entry.

    Attributes:
        job: whose result it is.
        outputs: output name → value, with the paths of the run that made it.
        paths: what the job's configuration says that it writes, in that run.
        names: for each path the files or folders that stood for it: one of its own name, its shards, or none.
        artifacts: the job's own folder, in that run.
        digests: path in the entry → digest of every file.
        size: bytes of all files.
        seconds: how long the job took.
        created: when it was kept, in seconds since 1970.
        version: of this form.
    """

    job: str
    outputs: Mapping[str, Any]
    paths: Sequence[str]
    names: Sequence[Sequence[str]]
    artifacts: str
    digests: Mapping[str, str]
    size: int
    seconds: float
    created: float
    version: int = _VERSION


class SharedResults:
    """The results of finished jobs, by key.

    Who looks up, runs and keeps a job holds the lock of its key meanwhile, so that it runs once.

    Args:
        folder: where entries are: `KEY[:2]/KEY/` each.
        memo: remembers digests of files, so that checking an entry reads no contents.
    """

    def __init__(self, folder: Path, memo: DigestMemo) -> None:
        self._folder = folder
        self._memo = memo
        self._locks = KeyLocks(folder / ".locks")

    def has(self, key: str) -> float | None:
        """Seconds that a job took whose result is there, None when it is not."""
        record = _read(self._entry(key))
        return None if record is None else record.seconds

    def take(
        self,
        key: str,
        paths: Sequence[str],
        artifacts: Path,
        *,
        others: Collection[str] | None = None,
        copied: Collection[str] = (),
    ) -> Mapping[str, Any] | None:
        """Puts a result where it is wanted.

        A folder among `paths` is replaced, so that nothing of another attempt stays in it; one that holds
        what is not the job's, or where nobody says whether it does, gets the result's files beside that.

        Args:
            key: the job's.
            paths: what the job's configuration says that it writes, in the order in which it was kept.
            artifacts: the job's own folder; replaced.
            others: files and folders at or below `paths` that are not this job's, as absolute paths; None when
                that is not known.
            copied: names in `artifacts` that are copied, since their files are appended to.

        Returns:
            The job's outputs, with the paths of this run; None when there is no good result.
        """
        entry = self._entry(key)
        if not entry.exists():
            return None
        with self._locks.hold([key]):
            record = self._checked(entry)
            if record is None:
                return None
            with suppress(OSError):
                os.utime(entry / _RECORD)  # the one used last is the last to be removed
            try:
                remove(artifacts)
                self._place(entry / _ARTIFACTS, artifacts, record, entry, copied)
                foreign = None if others is None else {same_path(str(artifacts)), *map(same_path, others)}
                for index in sorted(range(len(paths)), key=lambda index: len(same_path(paths[index]))):  # folders first
                    self._place_write(entry, index, record, paths[index], foreign)
            except OSError as error:
                logger.warning("the result of %s is there, but cannot be put in place: %s", record.job, error)
                return None
        return rebase(record.outputs, _moves(record, paths, artifacts))

    def keep(
        self,
        key: str,
        outputs: Mapping[str, Any],
        paths: Sequence[str],
        artifacts: Path,
        seconds: float,
        job: str,
        *,
        place: str = "",
        others: Collection[str] = (),
        copied: Collection[str] = (),
    ) -> bool:
        """Keeps the result of a finished job for others; never raises because it cannot.

        Args:
            key: the job's.
            outputs: output name → value.
            paths: what its configuration says that it writes, where that really is.
            artifacts: its own folder.
            seconds: how long it took.
            job: its id, for messages.
            place: folder of the run or search. A result that names it beyond `paths` and `artifacts` would
                send others there, so it is not kept.
            others: files and folders below `paths` that are not this job's, as absolute paths.
            copied: names in `artifacts` that are copied, since their files are appended to.

        Returns:
            Whether it is kept.
        """
        entry = self._entry(key)
        staging = entry.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            staging.mkdir(parents=True)
            names = [[Path(found).name for found in standing(path)] for path in paths]
            record = _Record(job, outputs, list(paths), names, str(artifacts), {}, 0, seconds, time.time())
            found = self._gather(staging, record, {same_path(path) for path in others}, copied)
            _refuse_place(place, record, found)
            digests = {name: self._digest(source, staging / name) for name, source in found.items()}
            size = sum(source.stat().st_size for source in found.values())
            content = json.dumps(asdict(record) | {"digests": digests, "size": size}, ensure_ascii=False)
            (staging / _RECORD).write_text(content, encoding="utf-8")
            with self._locks.hold([key]):
                if _read(entry) is None:  # else another one kept it meanwhile
                    remove(entry)
                    os.replace(staging, entry)
                    for name, value in digests.items():
                        self._note(found[name], entry / name, value)
        except _NotKeptError as reason:
            logger.info("the result of job %s serves no other run: %s", job, reason)
            return False
        except OSError as error:  # a full disk, a link that fails
            logger.warning("the result of job %s is not kept for other runs: %s", job, error)
            return False
        except Exception:  # whatever it is, the job itself is done
            logger.exception("the result of job %s is not kept for other runs", job)
            return False
        finally:
            with suppress(OSError):
                remove(staging)
        return True

    def prune(self, limit: int = LIMIT_BYTES) -> None:
        """Removes the entries that were not used for the longest time until the rest takes at most `limit` bytes."""
        found: list[tuple[float, int, Path]] = []
        for entry in self._folder.glob("[!.]*/*"):
            with suppress(OSError):  # removed by another run
                record = None if entry.name.startswith(".") else _read(entry)  # hidden: not in its place yet
                if record is not None:
                    found.append(((entry / _RECORD).stat().st_mtime, record.size, entry))
                elif time.time() - entry.stat().st_mtime > _ABANDONED_S:
                    remove(entry)
        excess = sum(size for _, size, _ in found) - limit
        for used, size, entry in sorted(found):
            if excess <= 0:
                break
            with self._locks.hold([entry.name]), suppress(OSError):
                if (entry / _RECORD).stat().st_mtime == used:  # not taken meanwhile
                    _discard(entry)
                    excess -= size
        self._locks.sweep()

    def _entry(self, key: str) -> Path:
        return self._folder / key[:2] / key

    def _checked(self, entry: Path) -> _Record | None:
        """The record of an entry whose files are all as they were kept; a damaged entry is removed."""
        record = _read(entry)
        if record is None:
            return None
        damaged = [name for name, value in record.digests.items() if self._memo.of(entry / name) != value]
        if damaged:
            logger.warning("the kept result of job %s has changed (%s): it runs again", record.job, damaged[0])
            _discard(entry)
            return None
        return record

    def _gather(
        self, staging: Path, record: _Record, others: Collection[str], copied: Collection[str]
    ) -> dict[str, Path]:
        """Links everything of a result into a folder; returns path in it → the file that it was linked from."""
        (staging / _ARTIFACTS).mkdir()
        found = dict(_link_tree(Path(record.artifacts), staging / _ARTIFACTS, others, staging, copied))
        for index, path in enumerate(record.paths):
            folder = staging / _WRITES / str(index)
            folder.mkdir(parents=True)
            for name in map(Path, standing(path)):
                found |= _link_tree(name, folder / name.name, others, staging)
                for companion in _companions(name, path):
                    found |= _link_tree(companion, folder / companion.name, others, staging)
        return found

    def _digest(self, source: Path, linked: Path) -> str:
        """Digest of a file, found at the name where it may be known."""
        value = self._memo.of(source)
        if value is None or not linked.exists():
            raise _NotKeptError(f"{source} is gone")
        return value

    def _note(self, source: Path, target: Path, value: str) -> None:
        if os.path.samefile(source, target):  # a copy is read once more when it is asked for
            self._memo.note(target, value)

    def _place_write(self, entry: Path, index: int, record: _Record, path: str, others: Collection[str] | None) -> None:
        """Puts one output in place, and removes what another attempt left under its name."""
        target, old = _whole(path), _whole(record.paths[index])
        items = sorted((entry / _WRITES / str(index)).iterdir())
        places = [target.with_name(_renamed(item.name, old.name, target.name)) for item in items]
        if items:
            shards = {Path(name) for name in glob.glob(shard_pattern(str(target))) if os.path.isfile(name)}
            for stale in {target} | shards:
                unknown = others is None and stale.is_dir()
                if not unknown and not any(is_inside(other, str(stale)) for other in others or ()):
                    remove(stale)
        for item, place in zip(items, places, strict=True):
            self._place(item, place, record, entry)

    def _place(self, source: Path, target: Path, record: _Record, entry: Path, copied: Collection[str] = ()) -> None:
        """Links a file or tree of an entry to where it is wanted; what stands there of equal name is replaced."""
        for name, kept in _link_tree(source, target, (), target, copied):
            linked = target if name == "." else target / name
            self._note(kept, linked, record.digests[str(kept.relative_to(entry))])


def rebase(value: Any, moves: Mapping[str, str]) -> Any:
    """A value with every path moved that is a key of `moves` or lies below one; the longest key counts."""
    if isinstance(value, Mapping):
        return {key: rebase(item, moves) for key, item in value.items()}
    if isinstance(value, list):
        return [rebase(item, moves) for item in value]
    if isinstance(value, str):
        for old in sorted(moves, key=len, reverse=True):
            if (value + "/").startswith(old.rstrip("/") + "/"):
                return moves[old] + value[len(old) :]
    return value


def _moves(record: _Record, paths: Sequence[str], artifacts: Path) -> dict[str, str]:
    """From where the paths of a result were to where they are now."""
    moves = {record.artifacts: str(artifacts)}
    for given, wanted, names in zip(record.paths, paths, record.names, strict=True):
        old, new = str(_whole(given)), str(_whole(wanted)) if wanted else ""
        moves |= {given: wanted, old: new}
        for name in names:
            folder, renamed = os.path.dirname(new), _renamed(name, os.path.basename(old), os.path.basename(new))
            moves[os.path.join(os.path.dirname(old), name)] = os.path.join(folder, renamed)
        if names and names[0] != os.path.basename(old):  # shards: what a job returns is their pattern
            total = names[0].removesuffix(split_name(old)[1]).rpartition("-")[2]
            moves |= {shard_pattern(old, number): shard_pattern(new, number) for number in (total, "[0-9]*")}
    return moves


def _whole(path: str) -> Path:
    """An output's path without `.` and `..`, so that its last part is its name."""
    return Path(same_path(path))


def _renamed(name: str, old: str, new: str) -> str:
    """The name of a file of an output, or beside it, when the output has another name."""
    if old == new:
        return name
    hidden = "." if name.startswith(".") and not old.startswith(".") else ""
    bare = name.removeprefix(hidden)
    if bare.startswith(old):
        return hidden + new + bare[len(old) :]
    (old_stem, old_end), (new_stem, new_end) = split_name(old), split_name(new)
    ending = _TRAVELS if hidden else ""
    return hidden + new_stem + bare.removesuffix(ending).removeprefix(old_stem).removesuffix(old_end) + new_end + ending


def _companions(file: Path, path: str) -> list[Path]:
    """Hidden files beside an output that belong to it."""
    names = {f".{name}{_TRAVELS}" for name in (file.name, Path(path).name)}
    return [found for name in sorted(names) if (found := file.with_name(name)).is_file()]


def _link_tree(
    source: Path,
    target: Path,
    others: Collection[str],
    root: Path,
    copied: Collection[str] = (),
    copy: bool = False,
) -> Iterator[tuple[str, Path]]:
    """Links a file, or all of a folder, and yields (path below `root`, source) of each file.

    Other hidden files than those that belong to content are notes for whoever made them there, and stay.
    What has one of the names `copied` directly in the folder is copied.
    """
    if source.is_symlink() and not source.is_file():
        raise _NotKeptError(f"{source} is a link")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for item in sorted(source.iterdir()):
            hidden = item.name.startswith(".") and not item.name.endswith(_TRAVELS)
            if not hidden and same_path(str(item)) not in others:
                yield from _link_tree(item, target / item.name, others, root, copy=copy or item.name in copied)
    elif source.exists():
        _link(source, target, copy)
        yield str(target.relative_to(root)), source


def _link(source: Path, target: Path, copy: bool) -> None:
    """Makes `target` the file `source`, by a hard link where that is wanted and possible; it appears by rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    real = os.path.realpath(source)
    try:
        try:
            (shutil.copy2 if copy else os.link)(real, temporary)
        except OSError:
            shutil.copy2(real, temporary)
        if target.is_dir():
            remove(target)
        # A rename onto another link of the same file does nothing and leaves the temporary name.
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_place(place: str, record: _Record, files: Mapping[str, Path]) -> None:
    """Raises where a result names the folder of its run.

    Raises:
        _NotKeptError: with what names it.
    """
    if not place:
        return
    texts = {same_path(place), os.path.realpath(place)}
    moves = _moves(record, ["" for _ in record.paths], Path("artifacts"))
    outputs = rebase(record.outputs, dict.fromkeys(moves, ""))
    paths = {same_path(text) for text in strings(outputs) if os.sep in text}
    shown = json.dumps(outputs, ensure_ascii=False)
    if any(text in shown for text in texts) or any(is_inside(path, same_path(place)) for path in paths):
        raise _NotKeptError("its outputs name the run's folder")
    for file in files.values():
        if file.suffix != _LOG and holds_text(file, texts):
            raise _NotKeptError(f"{file} names the run's folder")


def _read(entry: Path) -> _Record | None:
    try:
        content = json.loads((entry / _RECORD).read_text(encoding="utf-8"))
        return _Record(**content) if content["version"] == _VERSION else None
    except (OSError, ValueError, TypeError, KeyError):  # absent, torn, or of another version
        return None


def _discard(entry: Path) -> None:
    """Removes an entry: at once for who looks it up, then its files."""
    doomed = entry.with_name(f".tmp-{uuid.uuid4().hex}")
    os.replace(entry, doomed)
    remove(doomed)
