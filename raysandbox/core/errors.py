"""The one error tree. A `UserError` is printed as one message without a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BadRowsError",
    "ConfigError",
    "JobFailed",
    "JobTimeout",
    "MissingExtraError",
    "MissingMetricError",
    "Problem",
    "RunInterrupted",
    "SandboxError",
    "UnknownNameError",
    "UserError",
    "WorkDirBusyError",
    "WorkerLeaves",
    "WriteFailed",
    "did_you_mean",
]


# What a configuration quotes must neither steer a terminal nor make an output undecodable.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class SandboxError(Exception):
    """Base of every error that raysandbox raises on purpose."""


class UserError(SandboxError):
    """Something that the user can mend; its text names the file, the key and the fix."""


@dataclass(frozen=True)
class Problem:
    """One finding of `check`.

    Attributes:
        file: the file it stands in, or None when it stands in no file.
        line: 1-based line, or None when unknown.
        path: dotted path of the key, "" for the whole file.
        message: what is wrong.
        fix: what to do about it, may be empty.
        severity: a warning does not change the exit status.
        missing_path: a path that does not exist: a warning for `check`, an error for `run`.
    """

    file: str | None
    line: int | None
    path: str
    message: str
    fix: str = ""
    severity: Literal["error", "warning"] = "error"
    missing_path: bool = False

    def __str__(self) -> str:
        where = self.file or "<configuration>"
        if self.line is not None:
            where += f":{self.line}"
        path = f" {self.path}:" if self.path else ""
        fix = f" ({self.fix})" if self.fix else ""
        return _CONTROL.sub(_escaped, f"{where}:{path} {self.message}{fix}")


class ConfigError(UserError):
    """The configuration or an input is wrong; carries every problem found, not the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)  # as given, so that it survives pickling between processes

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class UnknownNameError(UserError):
    """A name that no registry knows."""


class MissingExtraError(UserError):
    """An optional stack is not installed; the message is one line that says what to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(package, extra, purpose)  # as given, so that it survives pickling

    def __str__(self) -> str:
        package, extra, purpose = self.args
        return f"{purpose} needs {package}: pip install 'raysandbox[{extra}]'"


class JobFailed(UserError):
    """A job ended without its outputs."""


class JobTimeout(JobFailed):
    """A job ran past its `timeout_s`."""


class MissingMetricError(JobFailed):
    """A metric that a target, an updater or a search needs was not produced."""


class BadRowsError(JobFailed):
    """More rows could not be read or processed than `max_bad_rows` allows."""


class WriteFailed(JobFailed, OSError):
    """A file cannot be written, because a disk is full or read-only.

    Also an `OSError` (number, what is wrong and what to do, path of the file): what may go on without the
    file, such as a cache, need not know it.
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class WorkDirBusyError(UserError):
    """Another live process runs in the same work_dir."""


class WorkerLeaves(JobFailed):
    """A training ends here since its node is about to go; what it needs to go on elsewhere is written."""


class RunInterrupted(SandboxError):
    """SIGINT or SIGTERM arrived; the run can be resumed.

    Attributes:
        signum: number of the signal; the exit status is 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)

    def __str__(self) -> str:
        return f"interrupted by signal {self.signum}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "did you mean 'y'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""
