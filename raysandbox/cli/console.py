"""How the command line draws: tables, and the progress of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

from raysandbox.core.progress import Progress as WorkProgress
from raysandbox.core.redact import redact_text
from raysandbox.sandbox.view import RunView

if TYPE_CHECKING:
    from raysandbox.config.schema import JobEntry
    from raysandbox.report.summary import Table
    from raysandbox.sandbox.plan import ExperimentPlan
    from raysandbox.sandbox.trials import TrialRecord

__all__ = ["ConsoleView", "console", "print_table"]

# Not a terminal: wide enough that tables in a log are not wrapped.
console = Console(highlight=False, soft_wrap=False, width=None if Console().is_terminal else 160)

_MARKS = {
    "done": "[green]done[/]",
    "cached": "[cyan]cached[/]",
    "failed": "[red]failed[/]",
    "stopped": "[yellow]stopped[/]",
    "pending": "[yellow]given up[/]",
}
_REASON_CHARACTERS = 200


def print_table(table: Table) -> None:
    """Prints a table; the first column left, the others right."""
    drawn = RichTable(title=escape(table.title), title_justify="left", header_style="bold")
    for number, column in enumerate(table.columns):
        drawn.add_column(escape(column), justify="left" if number < table.texts else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(escape, row))
    console.print(drawn)


class ConsoleView(RunView):
    """Shows a run: a line per job, and on a terminal a bar for what is going on."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = _Bar(self._bars)
        self._jobs: dict[int, TaskID] = {}
        self._numbers: dict[int, int] = {}  # of jobs, by their identity, in the order of the configuration

    def __enter__(self) -> ConsoleView:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def run_started(self, plan: ExperimentPlan, work_dir: str) -> None:
        """Says where the run is."""
        self._numbers = {id(job.entry): number for number, job in enumerate(plan.jobs, start=1)}
        console.print(f"{len(self._numbers)} jobs, work_dir {escape(work_dir)}")

    def note(self, text: str) -> None:
        """Prints a note."""
        console.print(f"[yellow]note[/] {escape(redact_text(text))}")

    def iteration_started(self, number: int, of: int) -> None:
        """Prints the iteration."""
        console.print(f"iteration {number} of at most {of}")

    def job_started(self, entry: JobEntry) -> None:
        """Shows the job as going on."""
        if console.is_terminal:
            name = escape(f"{self._place(entry)} {entry.id}")
            self._jobs[id(entry)] = self._bars.add_task(name, total=None)

    def job_ended(self, entry: JobEntry, state: str, seconds: float) -> None:
        """Prints the job's line."""
        if id(entry) in self._jobs:
            self._bars.remove_task(self._jobs.pop(id(entry)))
        name = escape(f"{self._place(entry)} {entry.id}")
        console.print(f"{name} ({entry.config.hook}) {_MARKS[state]} {seconds:.1f} s")

    def _place(self, entry: JobEntry) -> str:
        return f"[{self._numbers[id(entry)]}/{len(self._numbers)}]"

    @contextlib.contextmanager
    def job_progress(self, name: str) -> Iterator[WorkProgress]:
        """A bar of its own: several jobs may run."""
        bar = _Bar(self._bars, f"{name}: ")
        try:
            yield bar
        finally:
            bar.end()

    def search_started(self, trials: int | None, concurrent: int, work_dir: str) -> None:
        """Says how long the search is."""
        number = "trials without a limit" if trials is None else f"{trials} trials"
        console.print(f"{number}, {concurrent} at a time, work_dir {escape(work_dir)}")
        self.begin("trials", trials, "")

    def trial_ended(self, trial: TrialRecord, best: TrialRecord | None) -> None:
        """Prints the trial's line."""
        self.advance(1)
        params = ", ".join(f"{name}={short(value)}" for name, value in trial.params.items())
        value = "" if trial.value is None else f" {trial.value:.6g}"
        mark = " [bold](best)[/]" if best is not None and best.number == trial.number else ""
        console.print(f"trial {trial.name} {_MARKS[trial.state]}{value}{mark} {trial.seconds:.1f} s: {escape(params)}")
        if trial.reason:
            console.print(f"  {escape(trial.reason[:_REASON_CHARACTERS])}", soft_wrap=True)

    def begin(self, description: str, total: float | None = None, unit: str = "rows") -> None:
        """Starts a bar."""
        self._bar.begin(description, total, unit)

    def advance(self, amount: float) -> None:
        """Moves the bar on."""
        self._bar.advance(amount)

    def end(self) -> None:
        """Takes the bar away."""
        self._bar.end()


class _Bar(WorkProgress):
    """The bar of one job's current step, or of a search.

    Args:
        bars: where it is drawn.
        prefix: what stands before each description.
    """

    def __init__(self, bars: Progress, prefix: str = "") -> None:
        self._bars, self._prefix = bars, prefix
        self._task: TaskID | None = None

    def begin(self, description: str, total: float | None = None, unit: str = "rows") -> None:
        """Starts a bar."""
        self.end()
        suffix = f" ({unit})" if unit else ""
        self._task = self._bars.add_task(escape(f"{self._prefix}{description}{suffix}"), total=total)

    def advance(self, amount: float) -> None:
        """Moves the bar on."""
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def end(self) -> None:
        """Takes the bar away."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


def short(value: object) -> str:
    """A parameter's value in a line: numbers with six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
