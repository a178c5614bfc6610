"""Which piece of work a thread does, where several are done at the same time.

Log records find the log of their job by it, and what is kept in memory between two blocks of rows
belongs to the job that loaded it: jobs beside each other must not throw out what the other needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Scope", "current_log", "current_scope", "kept", "logging_to", "working_in"]


@dataclass(eq=False)
class Scope:
    """One piece of work in this process.

    Attributes:
        name: of it, for people.
        memory: what it keeps, by purpose; goes with it.
    """

    name: str
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)


_PROCESS = Scope("")  # of threads that work for nobody in particular: a worker's, a notebook's
_current: ContextVar[Scope | None] = ContextVar("scope", default=None)
_log: ContextVar[Path | None] = ContextVar("log", default=None)


def current_scope() -> Scope | None:
    """The work of this thread; None where nobody said."""
    return _current.get()


def kept(purpose: str) -> dict[str, Any]:
    """What this thread's work keeps for a purpose, a mapping that the caller fills and empties."""
    return (_current.get() or _PROCESS).memory.setdefault(purpose, {})


@contextlib.contextmanager
def working_in(scope: Scope) -> Iterator[None]:
    """Says what this thread works for while the block runs."""
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)


def current_log() -> Path | None:
    """The log of the job that this thread works for; None where there is none."""
    return _log.get()


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Says which log belongs to what this thread does while the block runs."""
    token = _log.set(path)
    try:
        yield
    finally:
        _log.reset(token)
