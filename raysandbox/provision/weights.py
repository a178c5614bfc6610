"""Model files that components need: where they belong, whether they are there and whole.

The manifest `weights.json` names every one. A size, digest or licence that is not known is null.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from raysandbox.core.errors import UnknownNameError, did_you_mean
from raysandbox.core.files import cache_dir

__all__ = [
    "DAMAGE",
    "Verdict",
    "WeightFile",
    "checked_parts",
    "components",
    "content_fault",
    "files_of",
    "missing",
    "missing_message",
    "parts_of",
    "root_of",
]

_MANIFEST = Path(__file__).with_name("weights.json")
_CHUNK = 1 << 20

DAMAGE: tuple[type[Exception], ...] = (  # what reading a damaged archive raises; codecs raise OSError too
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,  # encrypted; as NotImplementedError: an unknown compression
    ValueError,
)

State = Literal["ok", "unchecked", "missing", "empty", "wrong size", "incomplete", "corrupt"]


@dataclass(frozen=True)
class Verdict:
    """What was found at a file's place.

    Attributes:
        state: "ok" when it is as the manifest says; "unchecked" when it is there and the manifest knows
            no digest to compare with; else what is wrong.
        detail: what is wrong, in words.
    """

    state: State
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether the file can be used, as far as is known."""
        return self.state in ("ok", "unchecked")


@dataclass(frozen=True)
class WeightFile:
    """A file, or a folder, that parts of a component need.

    Attributes:
        component: its type in a configuration.
        name: path below the root.
        parts: what of the component needs it, e.g. VBench's dimensions.
        root: which root: vbench, torch_hub, huggingface, quality or inception.
        size: bytes, if known.
        licence: as its source names it, if known.
        sha256: digest, if known.
        sha256_prefix: first digits of the digest, where only these are known.
        urls: where it comes from.
        member: the file inside of the archive that the URLs give, if they give one.
        holds: patterns that a folder must hold; a file has none.
        instead: a folder below the root that serves as well.
        note: what else is to be said.
    """

    component: str
    name: str
    parts: tuple[str, ...]
    root: str
    size: int | None = None
    licence: str | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    urls: tuple[str, ...] = ()
    member: str | None = None
    holds: tuple[str, ...] = ()
    instead: str | None = None
    note: str = ""

    def target(self) -> Path:
        """Where it belongs on this machine."""
        return root_of(self.root) / self.name

    @property
    def has_digest(self) -> bool:
        """Whether the manifest knows what its content must be."""
        return bool(self.sha256 or self.sha256_prefix)

    def state(self) -> Verdict:
        """What can be seen without reading it."""
        target = self.target()
        if self.instead and (root_of(self.root) / self.instead).is_dir():
            return Verdict("unchecked")
        if self.holds:
            absent = [pattern for pattern in self.holds if not any(target.glob(pattern))]
            if len(absent) == len(self.holds):
                return Verdict("missing")
            return Verdict("incomplete", f"lacks {', '.join(absent)}") if absent else Verdict("unchecked")
        if not target.is_file():
            return Verdict("missing")
        size = target.stat().st_size
        if not size:
            return Verdict("empty", "0 bytes")
        if self.size is not None and size != self.size:
            return Verdict("wrong size", f"{size} bytes instead of {self.size}")
        return Verdict("unchecked")

    def verify(self) -> Verdict:
        """Reads it: compares the digest where one is known, else looks whether it is whole."""
        state = self.state()
        target = self.target()
        if not state.good or not target.is_file():
            return state
        fault = content_fault(self, target)
        if fault:
            return Verdict("corrupt", fault)
        return Verdict("ok") if self.has_digest else Verdict("unchecked", "no digest is known")


def components() -> list[str]:
    """Components that need model files."""
    return sorted(_manifest())


def parts_of(component: str) -> list[str]:
    """The parts of a component, those without model files too.

    Raises:
        UnknownNameError: the manifest has no such component.
    """
    return list(_entry(component)["parts"])


def files_of(component: str, parts: Collection[str] | None = None) -> list[WeightFile]:
    """The files that a component needs.

    Args:
        component: its type in a configuration.
        parts: only what these parts need; names that need no files are passed over.

    Raises:
        UnknownNameError: the manifest has no such component.
    """
    entry = _entry(component)
    found = []
    for item in entry["files"]:
        lists = {key: tuple(item.get(key, ())) for key in ("parts", "urls", "holds")}
        found.append(WeightFile(**{"root": entry["root"], **item, **lists, "component": component}))
    return [file for file in found if parts is None or not set(parts).isdisjoint(file.parts)]


def checked_parts(component: str, parts: Collection[str]) -> list[str]:
    """The parts, if the component has them all.

    Raises:
        UnknownNameError: one is unknown; the message names the closest one.
    """
    known = parts_of(component)
    for part in parts:
        if part not in known:
            hint = did_you_mean(part, known) or f"known: {', '.join(known)}"
            raise UnknownNameError(f"'{component}' has no part '{part}'; {hint}")
    return list(parts)


def missing(component: str, parts: Collection[str] | None = None) -> list[WeightFile]:
    """The files that are not there, or of which a look at their size says that they are not whole."""
    return [file for file in files_of(component, parts) if not file.state().good]


def missing_message(files: Sequence[WeightFile], parts: Collection[str] | None = None) -> str:
    """What to do about files of one component that are not there, in one line; "" for none.

    Args:
        files: what `missing` returned.
        parts: what it was asked for.
    """
    if not files:
        return ""
    named = ", ".join(f"{file.target()} ({_reason(file)})" for file in files)
    needed = [part for part in parts or () if any(part in file.parts for file in files)]
    command = " ".join(["raysandbox weights fetch", files[0].component, *(f"--part {part}" for part in needed)])
    return f"model files are not on this machine: {named}; `{command}` gets them, or says where to bring them"


def content_fault(file: WeightFile, path: Path) -> str:
    """What is wrong with the content at a path, "" when nothing can be found.

    Without a known digest, archives (as torch writes them) are read to their end and checked by their
    own checksums, and pages that a server sent in place of the file are told apart.
    """
    if file.has_digest:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if file.sha256 and found != file.sha256:
            return f"sha256 {found} instead of {file.sha256}"
        if file.sha256_prefix and not found.startswith(file.sha256_prefix):
            return f"sha256 {found} does not start with {file.sha256_prefix}"
        return ""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file"
    if head.startswith(b"PK\x03\x04"):
        return _zip_fault(path)
    return _gzip_fault(path) if head.startswith(b"\x1f\x8b") else ""


def _zip_fault(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (*DAMAGE, OSError) as error:
        return f"an archive that ends early or is damaged ({error})"
    return f"an archive whose member {bad} is damaged" if bad else ""


def _gzip_fault(path: Path) -> str:
    try:
        with gzip.open(path) as stream:
            while stream.read(_CHUNK):
                pass
    except (OSError, zlib.error, EOFError) as error:
        return f"a gzip file that ends early or is damaged ({error})"
    return ""


def _reason(file: WeightFile) -> str:
    verdict = file.state()
    return f"{verdict.state}: {verdict.detail}" if verdict.detail else verdict.state


@cache
def _manifest() -> Mapping[str, Any]:
    return json.loads(_MANIFEST.read_text(encoding="utf-8"))


def _entry(component: str) -> Mapping[str, Any]:
    if component not in _manifest():
        hint = did_you_mean(component, components()) or f"known: {', '.join(components())}"
        raise UnknownNameError(f"no model files are known for '{component}'; {hint}")
    return _manifest()[component]


def root_of(name: str) -> Path:
    """The folder of a kind of model files, as the libraries that read them choose it."""
    home = Path.home()
    if name == "vbench":
        return Path(os.environ.get("VBENCH_CACHE_DIR") or home / ".cache" / "vbench")
    if name == "torch_hub":
        cache = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
        return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser() / "hub" / "checkpoints"
    if name == "huggingface":
        hub = os.environ.get("HF_HOME") or home / ".cache" / "huggingface"
        return Path(os.environ.get("HF_HUB_CACHE") or Path(hub) / "hub").expanduser()
    return cache_dir() / "models" / name
