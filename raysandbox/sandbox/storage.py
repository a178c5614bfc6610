"""Objects below a URL, by relative name, through fsspec: what a run's folder on `s3://` is made of.

Credentials and options come from the environment only (AWS_…, GOOGLE_…, FSSPEC_<PROTOCOL>_<OPTION>).
Every operation is tried again with growing pauses until its time is over, and none is waited for longer
than an answer may take, whatever the protocol's own limits are.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from raysandbox.core.errors import SandboxError
from raysandbox.core.files import atomic_path
from raysandbox.core.redact import redact_text
from raysandbox.sandbox.limited_calls import within

__all__ = ["ObjectStore", "StorageError", "url_problem"]

T = TypeVar("T")

_S3 = ("s3", "s3a")
_S3_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_PARALLEL = 8
_ANSWER_S = 60.0  # for one operation
_LISTING = 10  # times as long: a listing of a million names is made of a thousand answers
_SLOWEST = 1 << 18  # bytes/s: what is sent or fetched more slowly hangs
_LONGEST_REASON = 300  # characters of a store's own message
_READ_ONLY = ("http", "https", "zip", "tar", "github", "git", "data", "filecache", "simplecache", "blockcache")
# Trying again changes nothing about these.
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, ValueError, ImportError)
# Stores that refuse to make an object that is there already; elsewhere two takers may both win.
_CONDITIONAL = ("s3", "s3a", "gs", "gcs", "memory")
_EXTRAS = {"s3": "s3", "s3a": "s3"}

logger = logging.getLogger(__name__)


class StorageError(SandboxError):
    """The store cannot be reached, or refuses."""


def url_problem(url: str) -> tuple[str, str] | None:
    """What is wrong with the URL of a work_dir, and the fix; no network is asked.

    Returns:
        message and fix, None when all is well.
    """
    if re.search(r"\s|[?#*\[\]]", url):
        return f"'{url}' is not the URL of a folder", "write protocol://bucket/folder without ? # * [ ] or spaces"
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return "holds credentials", "take them out: they come from the environment (AWS_ACCESS_KEY_ID …)"
    protocol = url.partition("://")[0]
    if protocol in _READ_ONLY:
        return f"'{protocol}://' cannot be written", "use a folder, or storage such as s3://bucket/folder"
    names = [name for name in url.partition("://")[2].split("/") if name]
    if any(name in (".", "..") for name in names):
        return f"'{url}' holds . or ..", "write the whole path"
    if len(names) < (1 if protocol in ("memory", "local") else 2):
        return f"'{url}' names no folder in a bucket", f"write {protocol}://bucket/folder"
    return _package_problem(protocol)


def _package_problem(protocol: str) -> tuple[str, str] | None:
    from fsspec.registry import known_implementations, registry

    if protocol in registry:
        return None
    known = known_implementations.get(protocol)
    if known is None:
        return f"unknown protocol '{protocol}://'", "use s3://, gs://, abfs:// or another that fsspec knows"
    package = str(known["class"]).split(".")[0]
    if importlib.util.find_spec(package) is None:
        extra = _EXTRAS.get(protocol)
        return f"'{protocol}://' needs {package}", f"pip install 'raysandbox[{extra}]'" if extra else str(known["err"])
    return None


@dataclass(frozen=True)
class ObjectStore:
    """The objects below a URL.

    Attributes:
        url: the folder, without a slash at its end.
        patience_s: how long an operation is tried again before it fails.
        answer_s: how long one attempt may take; contents have more time, by their size.
        abandoned: set when nobody waits for the result any more.
    """

    url: str
    patience_s: float = 20.0
    answer_s: float = _ANSWER_S
    abandoned: threading.Event | None = None

    @property
    def protocol(self) -> str:
        """What stands before `://`."""
        return self.url.partition("://")[0]

    @property
    def excludes(self) -> bool:
        """Whether the store itself lets only one make an object."""
        return self.protocol in _CONDITIONAL

    def read(self, name: str, size: int = 0) -> bytes | None:
        """The content of an object, None when there is none; `size` in bytes, where it may be large."""
        try:
            return self._tried(lambda fs, root: cast(bytes, fs.cat_file(f"{root}/{name}")), f"read {name}", size)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Puts an object in place of what was there; it appears whole."""

        def put(fs: Any, root: str) -> None:
            self._folder(fs, f"{root}/{name}")
            arriving = self._arriving(f"{root}/{name}")
            fs.pipe_file(arriving, content)
            self._arrived(fs, arriving, f"{root}/{name}")

        self._tried(put, f"write {name}", len(content))

    def create(self, name: str, content: bytes) -> bool:
        """Makes an object unless there is one; returns whether it was made."""

        def make(fs: Any, root: str) -> bool:
            self._folder(fs, f"{root}/{name}")
            fs.invalidate_cache()
            if fs.exists(f"{root}/{name}"):
                return False
            fs.pipe_file(f"{root}/{name}", content, mode="create" if self.excludes else "overwrite")
            return True

        try:
            return self._tried(make, f"write {name}")
        except FileExistsError:
            return False
        except StorageError as error:
            if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                return False
            raise

    def upload(self, source: Path, name: str) -> None:
        """Sends a file; it appears whole."""

        def put(fs: Any, root: str) -> None:
            self._folder(fs, f"{root}/{name}")
            arriving = self._arriving(f"{root}/{name}")
            fs.put_file(str(source), arriving)
            self._arrived(fs, arriving, f"{root}/{name}")

        self._tried(put, f"write {name}", source.stat().st_size)

    def download(self, name: str, target: Path, size: int) -> None:
        """Fetches an object of a size in bytes to a file, which appears whole."""

        def get(fs: Any, root: str) -> None:
            with atomic_path(target) as arriving:
                fs.get_file(f"{root}/{name}", str(arriving))

        self._tried(get, f"read {name}", size)

    def sizes(self) -> dict[str, int]:
        """All objects: name → bytes; empty when nothing stands there."""

        def look(fs: Any, root: str) -> dict[str, int]:
            fs.invalidate_cache()
            found = cast("dict[str, Any]", fs.find(root, detail=True))
            prefix = root.rstrip("/") + "/"
            sizes = {
                name[len(prefix) :]: int(info["size"] or 0) for name, info in found.items() if name.startswith(prefix)
            }
            return {name: size for name, size in sizes.items() if self._is_below(name)}

        try:
            return replace(self, answer_s=_LISTING * self.answer_s)._tried(look, "be listed")
        except FileNotFoundError:
            return {}

    def move(self, name: str, target: str, size: int) -> None:
        """Gives an object of a size in bytes another name, inside the store."""

        def shift(fs: Any, root: str) -> None:
            self._folder(fs, f"{root}/{target}")
            fs.copy(f"{root}/{name}", f"{root}/{target}")
            fs.rm_file(f"{root}/{name}")

        self._tried(shift, f"move {name}", size)

    def remove(self, name: str) -> None:
        """Removes an object, if there is one."""
        try:
            self._tried(lambda fs, root: fs.rm_file(f"{root}/{name}"), f"remove {name}")
        except FileNotFoundError:
            return

    def age(self, name: str, probe: str) -> float | None:
        """Seconds between the last changes of two objects, by the store's own clock; None where it tells none."""
        try:
            times = self._tried(
                lambda fs, root: (fs.invalidate_cache(), fs.modified(f"{root}/{name}"), fs.modified(f"{root}/{probe}")),
                f"read {name}",
            )
            return (times[2] - times[1]).total_seconds()
        except (FileNotFoundError, NotImplementedError, AttributeError):
            return None

    def each(self, work: Callable[[T], object], items: Iterable[T]) -> None:
        """Calls `work` with every item, several at once, in threads that do not keep the process alive.

        Raises:
            BaseException: the first error; what was begun ends, nothing more begins.
        """
        left, errors, guard = iter(list(items)), [], threading.Lock()

        def pull() -> None:
            while not errors:  # until the items are used up
                with guard:
                    try:
                        item = next(left)
                    except StopIteration:
                        return
                try:
                    work(item)
                except BaseException as error:  # noqa: BLE001 — raised where the user sees it
                    errors.append(error)

        threads = [threading.Thread(target=pull, name="storage", daemon=True) for _ in range(_PARALLEL)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # waits: every operation has a limit of its own; a signal is heard meanwhile
                thread.join(0.2)
        if errors:
            raise errors[0]

    def _is_below(self, name: str) -> bool:
        """Whether a name, which others may have chosen, is that of a file below a folder; says where it is not."""
        below = "\0" not in name and not {"", ".", ".."}.intersection(name.split("/"))
        if not below:
            logger.warning("%s: the object %r is left out: its name leads elsewhere", self.url, name)
        return below

    def _folder(self, fs: Any, path: str) -> None:
        if self.protocol == "local":  # stores of objects have no folders
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _arriving(self, path: str) -> str:
        """Where an object is written first: where objects do not appear whole, beside its place."""
        folder, _, name = path.rpartition("/")
        return f"{folder}/.tmp-{uuid.uuid4().hex[:8]}-{name}" if self.protocol == "local" else path

    def _arrived(self, fs: Any, arriving: str, path: str) -> None:
        if arriving != path:
            fs.mv(arriving, path)

    def _system(self) -> tuple[Any, str]:
        from fsspec.config import conf
        from fsspec.core import url_to_fs

        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": False}
        if self.protocol in _S3:
            given = conf.get("s3", {}).get("config_kwargs", {})
            options["config_kwargs"] = {**_S3_TIMEOUTS, **given}
        system, root = url_to_fs(self.url, **options)
        return system, root.rstrip("/")

    def _tried(self, work: Callable[[Any, str], T], what: str, size: int = 0) -> T:
        """The result of an operation on so many bytes, tried again while the store does not answer.

        Raises:
            FileNotFoundError: there is no such object to be read.
            FileExistsError: there is one already.
            StorageError: anything else, when the time is over.
        """
        passed = (FileExistsError, NotImplementedError, *([] if what.startswith("write") else [FileNotFoundError]))
        limit = self.answer_s + size / _SLOWEST
        end, pause = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return within(limit, lambda: work(*self._system()))
            except passed:
                raise
            except Exception as error:  # every store raises errors of its own kind
                given_up = self.abandoned is not None and self.abandoned.is_set()
                if isinstance(error, _FINAL) or given_up or time.monotonic() + pause > end:
                    text = str(error).strip().split("\n")[0][:_LONGEST_REASON]
                    message = f"{self.url} cannot {what}: {type(error).__name__}: {text}"
                    raise StorageError(redact_text(message)) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
