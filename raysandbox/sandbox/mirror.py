"""A run's local folder and its copy in an object store: what is sent when, and what is fetched.

A store has no rename, so order stands in for it: of a finished job first every file, last its marker,
which names the files with their digests. A marker whose objects are missing or differ counts as not
there. Work that is not finished is sent at the end only, and named by one list that comes last.

Small files that name the folder (`context_infos.json`, refined recipes) hold its URL in the store, and
on every machine the folder that stands for it there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from raysandbox.core.files import atomic_write, remove
from raysandbox.core.keys import DigestMemo
from raysandbox.sandbox.state import own_files
from raysandbox.sandbox.storage import ObjectStore, StorageError
from raysandbox.sandbox.storage_lock import LOCK

__all__ = ["Mirror"]

_UNFINISHED = ".unfinished.json"
_KNOWN = ".unfinished.sha256"  # here: which list of unfinished work was sent or fetched last
_TEXTS = (".json", ".jsonl", ".yaml", ".yml", ".csv", ".md", ".html", ".txt", ".log")
_LONGEST_TEXT = 64 << 20  # bytes of a file in which the folder's path is replaced
# Grow line by line: the longer of two is the later one where one begins with the other.
_GROWING = ("journal.jsonl", "metrics.jsonl")
_STATE = (
    *_GROWING,
    "context_infos.json",
    "config.yaml",
    "metrics.wandb.json",
    "params.json",
    "report.md",
    "report.html",
    "trials.csv",
    "best_config.yaml",
    "status.json",  # last: who reads "done" finds the rest
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Object:
    """An object as it was sent: digest and size of what is in the store; whether the folder's name was replaced."""

    sha256: str
    size: int
    places: bool


@dataclass
class Mirror:
    """A local folder that is sent to a store, and fetched from there.

    Attributes:
        store: where it goes.
        folder: the local folder.
        memo: digests of files.
    """

    store: ObjectStore
    folder: Path
    memo: DigestMemo
    _sent: dict[str, tuple[tuple[int, int, int], _Object]] = field(default_factory=dict)

    # --- sending

    def send_finished(self) -> int:
        """Sends jobs that have finished, each marker after its files. Returns their number."""
        found = {name: stamp for name in self._names() if _is_marker(name) and (stamp := _stamp(self.folder / name))}
        return sum(self._send_marker(name) for name in sorted(found, key=lambda name: found[name][1]))  # oldest first

    def send_state(self) -> None:
        """Sends what a reader looks at: `status.json` last."""
        states = [name for name in self._names() if _is_state(name)]
        for name in sorted(states, key=lambda name: _STATE.index(PurePosixPath(name).name)):
            self._send(name)

    def send_rest(self) -> None:
        """Sends logs, rejected rows, pictures and work that did not finish; then the list that makes it one."""
        names = sorted(name for name in self._names() if not _is_marker(name) and not _is_state(name))
        self.store.each(self._send, names)
        objects = {name: vars(self._sent[name][1]) for name in names if name in self._sent}
        content = json.dumps({"objects": objects}).encode()
        self.store.write(_UNFINISHED, content)
        self._know(content)

    def send_status(self) -> None:
        """Sends `status.json` alone."""
        self._send(_STATE[-1])

    def _send_marker(self, name: str) -> bool:
        path = self.folder / name
        stamp = _stamp(path)
        if stamp is None or (name in self._sent and self._sent[name][0] == stamp):
            return False
        try:
            marker = json.loads(path.read_text(encoding="utf-8"))
            digests: Mapping[str, str] = marker["digests"]
        except (OSError, ValueError, KeyError, TypeError):
            return False  # torn or gone: not done
        inside = {inner: digest for file, digest in digests.items() if (inner := self._inside(file)) is not None}
        self.store.each(self._send, inside)
        if any(self.memo.of(self.folder / inner) != digest for inner, digest in inside.items()):
            return False  # changed meanwhile: the job runs again
        objects = {inner: vars(self._sent[inner][1]) for inner in inside}
        text = json.dumps({"marker": marker, "objects": objects}, ensure_ascii=False)
        content = _swapped(text.encode(), str(self.folder), self.store.url)
        self.store.write(name, content)
        self._sent[name] = stamp, _Object(hashlib.sha256(content).hexdigest(), len(content), True)
        return True

    def _send(self, name: str) -> None:
        """Sends a file unless the store has it, or it went while that was looked at."""
        try:
            self._send_changed(name)
        except (StorageError, OSError):
            if (self.folder / name).exists():
                raise

    def _send_changed(self, name: str) -> None:
        path = self.folder / name
        for _ in range(3):
            stamp = _stamp(path)
            if stamp is None or (name in self._sent and self._sent[name][0] == stamp):
                return
            text = self._placed(path)
            if text is not None:
                made = _Object(hashlib.sha256(text).hexdigest(), len(text), True)
                self.store.write(name, text)
            else:
                made = _Object(str(self.memo.of(path)), stamp[0], False)
                self.store.upload(path, name)
            self._sent[name] = stamp, made
            if _stamp(path) == stamp or path.name in _GROWING:
                return  # else it changed under our hands: once more; a journal grows all the time

    def _placed(self, path: Path) -> bytes | None:
        """A small file's text with the URL in place of the folder; None where it does not name the folder."""
        if path.suffix not in _TEXTS or path.stat().st_size > _LONGEST_TEXT:
            return None
        content = path.read_bytes()
        swapped = _swapped(content, str(self.folder), self.store.url)
        return swapped if swapped != content else None

    # --- fetching

    def fetch(self) -> list[str]:
        """Brings what another machine left in the store; returns what cannot be used.

        Finished jobs come with all of their files, checked by digests. What stands here already stays.
        """
        sizes = {name: size for name, size in self.store.sizes().items() if not name.startswith("previous/")}
        notes: list[str] = []
        self.store.each(lambda name: self._fetch_state(name, sizes[name]), filter(_is_state, sizes))
        markers = self._read(filter(_is_marker, sizes), sizes)
        for name in sorted(markers):
            found = _parsed(markers[name])
            objects = _objects(found)
            if objects is None or not _is_whole(found.get("marker")) or not self._fetch_objects(objects, sizes):
                notes.append(f"{self.store.url}/{name}: its files are missing or differ: that job runs again")
                continue
            self._restore_marker(name, found["marker"])
        if not self._fetch_unfinished(sizes):
            notes.append(f"{self.store.url}: unfinished work there is not complete: it begins anew")
        return notes

    def _read(self, names: Iterable[str], sizes: Mapping[str, int]) -> dict[str, bytes | None]:
        """The contents of objects, read side by side."""
        contents: dict[str, bytes | None] = {}
        self.store.each(lambda name: contents.update({name: self.store.read(name, sizes[name])}), names)
        return contents

    def _fetch_unfinished(self, sizes: Mapping[str, int]) -> bool:
        """Brings work that did not finish, all of it, or false.

        A list that this machine sent or fetched says nothing new: a run that went on here and was killed,
        which sends no list, has left work that is at least as new as what the list names.
        """
        content = self.store.read(_UNFINISHED, sizes[_UNFINISHED]) if _UNFINISHED in sizes else None
        if content is None:
            return True
        objects = _objects(_parsed(content))
        if objects is None:
            return False
        left = {name: made for name, made in objects.items() if name not in self._sent}
        if self._knows(content):
            self.store.each(lambda name: self._stands(name, left[name]), left)  # what is the same is not sent again
            return True
        if not self._fetch_objects(left, sizes):
            return False
        self._know(content)
        return True

    def _know(self, unfinished: bytes) -> None:
        """Remembers a list of unfinished work, in the folder: who removes that has nothing that is newer."""
        with contextlib.suppress(OSError):  # on a full disk: what is sent counts, and a list may be fetched twice
            atomic_write(self.folder / _KNOWN, hashlib.sha256(unfinished).hexdigest())

    def _knows(self, unfinished: bytes) -> bool:
        path = self.folder / _KNOWN
        return path.exists() and path.read_text(encoding="utf-8") == hashlib.sha256(unfinished).hexdigest()

    def _fetch_objects(self, objects: Mapping[str, _Object], sizes: Mapping[str, int]) -> bool:
        """Brings files whose digests are known: all of them, or false."""
        if any(sizes.get(name) != made.size for name, made in objects.items()):
            return False
        bad: list[str] = []

        def bring(name: str) -> None:
            if not bad and not self._stands(name, objects[name]) and not self._fetch_object(name, objects[name]):
                bad.append(name)

        self.store.each(bring, objects)
        return not bad

    def _fetch_object(self, name: str, made: _Object) -> bool:
        path = self.folder / name
        arriving = path.with_name(f".tmp-fetched-{path.name}")
        try:
            self.store.download(name, arriving, made.size)
            with arriving.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != made.sha256:
                    return False
            if made.places:
                arriving.write_bytes(_swapped(arriving.read_bytes(), self.store.url, str(self.folder)))
            os.replace(arriving, path)
        except FileNotFoundError:
            return False
        finally:
            remove(arriving)
        stamp = _stamp(path)
        if stamp is not None:
            self._sent[name] = stamp, made
        return True

    def _stands(self, name: str, made: _Object) -> bool:
        """Whether the folder has what the store has."""
        path = self.folder / name
        stamp = _stamp(path)
        if stamp is None:
            return False
        if made.places:
            text = self._placed(path)
            same = text is not None and hashlib.sha256(text).hexdigest() == made.sha256
        else:
            same = self.memo.of(path) == made.sha256
        if same:
            self._sent[name] = stamp, made
        return same

    def _fetch_state(self, name: str, size: int) -> None:
        """Brings the state; of a file that grows the longer one stays where one begins with the other."""
        content = self.store.read(name, size)
        if content is None:
            return
        path = self.folder / name
        content = _swapped(content, self.store.url, str(self.folder))
        if path.exists() and path.name in _GROWING and path.read_bytes().startswith(content):
            return  # this machine wrote on when the store did not answer
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = path.with_name(f".tmp-fetched-{path.name}")
        arriving.write_bytes(content)
        os.replace(arriving, path)

    def _restore_marker(self, name: str, marker: Mapping[str, Any]) -> None:
        """Puts a marker in place with this machine's paths, and the digests of the files as they are here."""
        text = json.dumps(marker, ensure_ascii=False).encode()
        restored = json.loads(_swapped(text, self.store.url, str(self.folder)))
        restored["digests"] = {
            file: (self.memo.of(Path(file)) if self._inside(file) is not None else digest)
            for file, digest in restored["digests"].items()
        }
        atomic_write(self.folder / name, json.dumps(restored, ensure_ascii=False))
        stamp = _stamp(self.folder / name)
        if stamp is not None:
            self._sent[name] = stamp, _Object("", 0, True)

    # --- an earlier run

    def set_aside(self) -> str | None:
        """Moves an earlier run's state in the store to `previous/N`; returns that name.

        Markers go first: what is left of a move that is cut off counts as not done.
        """
        sizes = self.store.sizes()
        names = list(sizes)
        own = {os.path.basename(path) for path in own_files(self.folder)} - {"previous"} | {"trials", _UNFINISHED}
        mine = [n for n in names if (top := n.partition("/")[0]) in own or top.startswith("iter_")]
        if not set(mine) - {"status.json"}:
            return None
        numbers = [int(n.split("/")[1]) for n in names if n.startswith("previous/") and n.split("/")[1].isdigit()]
        target = f"previous/{max(numbers, default=0) + 1}"
        for part in (filter(_is_marker, mine), (name for name in mine if not _is_marker(name))):
            self.store.each(lambda name: self.store.move(name, f"{target}/{name}", sizes[name]), part)
        return target

    # --- names

    def _names(self) -> Iterator[str]:
        """Files of the folder that belong to the run, by their names in the store."""
        for parent, folders, files in os.walk(self.folder):
            if parent == str(self.folder) and "previous" in folders:
                folders.remove("previous")
            folders[:] = [name for name in folders if not name.startswith(".tmp-")]
            for name in files:
                if not name.startswith(".tmp-") and name not in (".lock", LOCK, _KNOWN):
                    yield (Path(parent) / name).relative_to(self.folder).as_posix()

    def _inside(self, file: str) -> str | None:
        """A file's name in the store, None for one outside of the folder."""
        try:
            return Path(file).relative_to(self.folder).as_posix()
        except ValueError:
            return None


def _is_marker(name: str) -> bool:
    return PurePosixPath(name).parts[-3:-1] == ("artifacts", "markers") and name.endswith(".json")


def _is_state(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[-1] in _STATE and (len(parts) == 1 or (parts[0] == "trials" and len(parts) == 3))


def _swapped(content: bytes, old: str, new: str) -> bytes:
    """A text with another folder's name wherever the one stands; names that only begin alike stay."""
    return re.sub(re.escape(old.encode()) + rb"(?![\w-]|\.\w)", lambda _: new.encode(), content)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _parsed(content: bytes | None) -> Any:
    try:
        return json.loads(content or b"")
    except ValueError:
        return None  # empty or torn


def _is_whole(marker: Any) -> bool:
    """Whether what a store gives as a marker has the form of one."""
    digests = marker.get("digests") if isinstance(marker, dict) else None
    return isinstance(digests, dict) and all(isinstance(digest, str | None) for digest in digests.values())


def _objects(found: Any) -> dict[str, _Object] | None:
    """The objects that a marker or list names; None where it is not a good one or leads out of the folder."""
    try:
        objects = {str(name): _Object(**made) for name, made in found["objects"].items()}
    except (TypeError, KeyError, AttributeError):
        return None
    if not all(isinstance(made.sha256, str) and isinstance(made.size, int) for made in objects.values()):
        return None
    outside = any(name.startswith("/") or ".." in PurePosixPath(name).parts for name in objects)
    return None if outside else objects
