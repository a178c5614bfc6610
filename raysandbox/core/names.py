"""Names of files that are made of any text, which texts can be paths, and which of them are local."""

from __future__ import annotations

import hashlib
import os
import re

__all__ = ["LONGEST_NAME", "is_remote", "local_name", "nameable", "pinned", "safe_stem"]

LONGEST_NAME = 255  # bytes that Linux file systems allow for a name
_LONGEST_PATH = 4095
_TAIL = len("~01234567-999999.mp4")  # what a stem that is cut must leave room for
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# The separator of paths, and characters that terminals and tools that read names line by line trip over.
_UNSAFE = re.compile(r"[/\x00-\x1f\x7f\u0085\u2028\u2029]")


def safe_stem(prompt: str, *, tell_apart: bool = False) -> str:
    """A prompt as the first part of a file name: the prompt itself, wherever a file may be called so.

    A slash or a control character becomes "_", so does a dot or nothing at the beginning, and what is
    too long is cut; such a name ends in "~" and 8 digits of the prompt's SHA-256, so that two prompts
    never share it.

    Args:
        prompt: any text that UTF-8 can write.
        tell_apart: whether the digits are added although the prompt needs no change.
    """
    stem = _UNSAFE.sub("_", prompt)
    if not stem or stem.startswith("."):
        stem = "_" + stem[1:]
    room = LONGEST_NAME - _TAIL
    if stem == prompt and len(stem.encode()) <= room and not tell_apart:
        return stem
    cut = stem.encode()[:room].decode("utf-8", "ignore")  # no half of a character at the end
    return f"{cut}~{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


def pinned(model: str) -> tuple[str, str | None]:
    """An id of the Hugging Face hub and the commit that it is pinned to, `org/model@COMMIT`; None when to none."""
    name, _, commit = model.rpartition("@")
    return (name, commit) if name and _COMMIT.fullmatch(commit) else (model, None)


def is_remote(path: str) -> bool:
    """Whether a path has a protocol other than `file://`."""
    return _PROTOCOL.match(path) is not None and not path.startswith("file://")


def local_name(path: str) -> str:
    """A local path without `file://`."""
    return path.removeprefix("file://")


def nameable(path: str) -> str:
    """The path itself, if anything can be called so; of a URL nothing is known.

    Raises:
        ValueError: it is too long, holds a NUL, or begins with the home of a user who does not exist.
    """
    if "\0" in path:
        raise ValueError("holds a NUL, which no path can")
    if "://" in path:
        return path
    name = max((part.encode("utf-8", "surrogatepass") for part in path.split("/")), key=len)
    if len(name) > LONGEST_NAME or len(path.encode("utf-8", "surrogatepass")) > _LONGEST_PATH:
        raise ValueError(f"is too long for a path: a name has at most {LONGEST_NAME} bytes")
    if path.startswith("~") and os.path.expanduser(path).startswith("~"):
        raise ValueError(f"there is no user {path.split('/', 1)[0][1:]}; write ./~… for a file that is called so")
    return path
