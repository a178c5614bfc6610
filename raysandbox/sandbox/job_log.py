"""The log of a job: what this process says while the job runs, and not what it says for another one."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
from collections.abc import Iterator
from pathlib import Path

from raysandbox.core.disk import dispensable, writes
from raysandbox.core.redact import RedactingFormatter
from raysandbox.core.scope import Scope, current_scope, logging_to

__all__ = ["job_log"]


@contextlib.contextmanager
def job_log(path: Path) -> Iterator[None]:
    """Sends the log records of this thread's work to the job's log file while the block runs.

    Records of threads that work for nobody in particular, such as a library's own, go to the logs of all
    jobs that run: better twice than lost.
    """
    with writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_Own(current_scope()))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with logging_to(path):
            yield
    finally:
        root.removeHandler(handler)
        with dispensable("a job's log", path):
            handler.close()


class _Own(logging.Filter):
    """Leaves out what is said in the threads of other work."""

    def __init__(self, scope: Scope | None) -> None:
        super().__init__()
        self._scope = scope

    def filter(self, record: logging.LogRecord) -> bool:
        """Called in the thread that speaks."""
        return current_scope() in (None, self._scope)


class _LogFile(logging.handlers.WatchedFileHandler):
    """A log that the disk may not take: said once, not with a traceback per line.

    Workers' output goes to the same file, which may be put aside for a new one meanwhile.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            logging.getLogger().removeHandler(self)  # which gets the warning too
            with dispensable("a job's log", Path(self.baseFilename)):
                raise error
        else:
            super().handleError(record)
