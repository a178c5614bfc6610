"""What components may ask of the machinery that runs them, without knowing it is Ray.

The implementations live in `recipe/` and `runtime/`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa

    from raysandbox.core.keys import DigestMemo
    from raysandbox.core.progress import Progress

__all__ = [
    "CachedScorer",
    "Emit",
    "Report",
    "RowScorer",
    "Scorers",
    "TrainSession",
    "UnitFailed",
    "UnitWork",
    "WorkSession",
    "Workers",
]


class Report(Protocol):
    """Receives metrics while a component works; never raises on a failing sink."""

    def __call__(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Reports named values, at a step when they belong to one."""
        ...


class Emit(Protocol):
    """Appends an event to the run's journal (see `core.events.Journal`)."""

    def __call__(self, event: str, **fields: Any) -> None:
        """Appends an event with its fields, JSON-like values."""
        ...


class RowScorer(Protocol):
    """Turns rows into columns of scores; pickled to where the rows are."""

    def load(self) -> Any:
        """Loads the model, once per worker."""
        ...

    def score(self, table: pa.Table, state: Any) -> Mapping[str, pa.Array]:
        """Returns columns of one value per row of `table`."""
        ...


@runtime_checkable
class CachedScorer(RowScorer, Protocol):
    """A row scorer whose scores may be kept and taken again for other rows with the same text.

    The scores of a row depend on the text in the columns that it names and on nothing else, neither on the
    rows beside it nor on their number, to the last bit; and its columns have the same types for all rows.
    """

    def cache_identity(self, memo: DigestMemo) -> Any:
        """What the scores depend on besides the rows: JSON-like, with the digests of models and the code's version.

        Args:
            memo: gives digests of files.

        Returns:
            None when nothing is to be kept.
        """
        ...

    def cache_columns(self) -> tuple[str, ...]:
        """The columns of text that the scores depend on, at least one; rows without text there are never kept."""
        ...


class Scorers(Protocol):
    """Applies a scorer to a data set, on as many nodes as there are."""

    def score(
        self,
        dataset_path: str,
        scorer: RowScorer,
        export_path: Path | None = None,
        *,
        on_device: bool = False,
        paths_as_written: bool = False,
    ) -> pa.Table:
        """Scores every row.

        Args:
            dataset_path: file, folder, glob or weighted mix.
            scorer: what to apply to each block of rows.
            export_path: where to write the rows with the new columns, if at all.
            on_device: whether the scorer works with a model on the devices that the job's `resources` ask for.
            paths_as_written: whether the scorer sees paths of media as the rows hold them, and in the column
                `ops.batch.FOLDER_COLUMN` where relative ones start; else these are absolute already.

        Returns:
            the scorer's columns, in input order.
        """
        ...


class TrainSession(Protocol):
    """What a training gets from the worker it runs in."""

    @property
    def report(self) -> Report:
        """Sends metrics to the watcher while the training runs."""
        ...

    @property
    def device(self) -> str:
        """The torch device: "cuda" when the bundle holds a GPU, else "cpu"."""
        ...

    @property
    def log_dir(self) -> Path:
        """Where the training may write logs of its own."""
        ...

    @property
    def prepared(self) -> Any:
        """What `ModelTrainer.prepare` returned."""
        ...

    @property
    def rank(self) -> int:
        """Number of this worker, from 0; where there are several, torch.distributed is set up between them."""
        ...

    @property
    def world_size(self) -> int:
        """Number of workers that train together."""
        ...

    def must_leave(self) -> bool:
        """Whether this worker's node is about to go.

        A training that can go on elsewhere asks after every step, writes what that takes and raises
        `WorkerLeaves` in all of its workers; it is begun again where there is room.
        """
        ...


class UnitWork(Protocol):
    """Work in units that do not depend on each other; pickled to the workers that do them."""

    def load(self, device: str) -> Any:
        """Loads the models, once per worker.

        Args:
            device: torch device of the worker, "cuda" or "cpu".
        """
        ...

    def run(self, unit: Any, state: Any) -> Any:
        """Does a unit: the same in every worker and in every order, so that a lost one is done again."""
        ...


@dataclass(frozen=True)
class UnitFailed:
    """What `Workers.map` yields in place of the result of a unit that failed as often as it may.

    Attributes:
        reason: for the user, of the last try.
    """

    reason: str


class Workers(Protocol):
    """The workers of a job: as many, with the CPUs and GPUs, as its `resources` ask for.

    Where they do not say, there is one worker, and each has a GPU of its own if the cluster has as many.
    """

    def map(
        self,
        work: UnitWork,
        units: Sequence[Any],
        *,
        description: str = "",
        noun: str = "units",
        python: str | None = None,
        num_workers: int | None = None,
        elastic: bool = False,
        tries: int | None = None,
        stall_timeout_s: float | None = None,
    ) -> Generator[tuple[int, Any], None, None]:
        """Does every unit once; a unit whose worker is lost is done again.

        Args:
            work: what to do.
            units: plain values, each small; workers take them from the first to the last.
            description: what a progress bar says.
            noun: what it counts.
            python: the interpreter of another environment to work in; it holds the same versions of
                Python and Ray, and of this package only what needs nothing else (`raysandbox env create`).
            num_workers: how many workers where the job's `resources` do not say.
            elastic: whether workers come and go with the cluster: the work begins with the first that
                can be had, and others join, up to the number that is asked for; where nothing says how
                many, one for each GPU of the cluster, whose number may change, or else one.
            tries: how often a unit that raises is done, each time by another worker where there is one;
                after the last its result is a `UnitFailed`. By default what a unit raises ends the work.
            stall_timeout_s: after how long at one unit, or at loading, a worker counts as lost; by default
                it is only said that it takes long.

        Yields:
            (index, result) of the units as they end, in any order; closing this ends the workers.

        Raises:
            JobFailed: the resources cannot be had, a unit raised and `tries` is not given, or one lost
                its worker three times and `tries` is not given.
        """
        ...


class WorkSession(Protocol):
    """What a component gets from the job that runs it."""

    @property
    def report(self) -> Report:
        """Sends metrics to the watcher."""
        ...

    @property
    def emit(self) -> Emit:
        """Appends an event of the job to the run's journal."""
        ...

    @property
    def progress(self) -> Progress:
        """Shows how far the work is; `workers` and `scorers` show theirs by themselves."""
        ...

    @property
    def scorers(self) -> Scorers:
        """Applies row scorers to data sets."""
        ...

    @property
    def workers(self) -> Workers:
        """Does units of work in the job's workers."""
        ...

    @property
    def artifacts(self) -> Path:
        """The job's own folder, empty at its start but for what the component keeps there (`kept_artifacts`)."""
        ...

    @property
    def quarantine(self) -> Path:
        """Where rows that fail are written, with reasons."""
        ...

    @property
    def cache_dir(self) -> Path:
        """What runs share."""
        ...

    @property
    def use_cache(self) -> bool:
        """Whether what earlier runs left in the cache may be read."""
        ...

    @property
    def execution(self) -> str:
        """A name that only this execution of the job has; its retries have the same."""
        ...

    @property
    def allow_user_code(self) -> bool:
        """Whether code that a configuration or a model brings may run."""
        ...
