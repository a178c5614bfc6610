"""What a run tells while it goes on; the command line draws it, libraries stay silent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raysandbox.core.progress import Progress

if TYPE_CHECKING:
    from raysandbox.config.schema import JobEntry
    from raysandbox.sandbox.plan import ExperimentPlan
    from raysandbox.sandbox.trials import TrialRecord

__all__ = ["RunView"]


class RunView(Progress):
    """Receives the events of a run. This one shows nothing."""

    def run_started(self, plan: ExperimentPlan, work_dir: str) -> None:
        """The run begins."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def iteration_started(self, number: int, of: int) -> None:
        """An iteration begins; only told when there are several."""

    def job_started(self, entry: JobEntry) -> None:
        """A job begins."""

    def job_ended(self, entry: JobEntry, state: str, seconds: float) -> None:
        """A job ended: "done", "cached", "failed", or "pending" where it was given up for another one's sake."""

    @contextlib.contextmanager
    def job_progress(self, name: str) -> Iterator[Progress]:
        """Receives the progress of one run of a job, in its thread; several may be open at the same time."""
        yield self

    def search_started(self, trials: int | None, concurrent: int, work_dir: str) -> None:
        """A search begins: how many trials are left, None when that is open, and how many run at once."""

    def trial_ended(self, trial: TrialRecord, best: TrialRecord | None) -> None:
        """A trial ended; `best` is the best one so far."""
