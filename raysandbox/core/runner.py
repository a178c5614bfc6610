"""What components may ask of the machinery that runs them, without knowing it is Ray.

The implementations live in `recipe/` and `runtime/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Report", "RowScorer", "Scorers", "TrainSession"]


class Report(Protocol):
    """Receives metrics while a component works; never raises on a failing sink."""

    def __call__(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Reports named values, at a step when they belong to one."""
        ...


class RowScorer(Protocol):
    """Turns rows into columns of scores; pickled to where the rows are."""

    def load(self) -> Any:
        """Loads the model, once per worker."""
        ...

    def score(self, table: pa.Table, state: Any) -> Mapping[str, pa.Array]:
        """Returns columns of one value per row of `table`."""
        ...


class Scorers(Protocol):
    """Applies a scorer to a data set, on as many nodes as there are."""

    def score(self, dataset_path: str, scorer: RowScorer, export_path: Path | None = None) -> pa.Table:
        """Scores every row.

        Args:
            dataset_path: file, folder, glob or weighted mix.
            scorer: what to apply to each block of rows.
            export_path: where to write the rows with the new columns, if at all.

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
