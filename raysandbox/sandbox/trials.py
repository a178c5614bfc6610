"""The trials of a search as its journal tells them: the one state from which a search goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from raysandbox.core.events import Journal, read_events

__all__ = ["TRIALS_FOLDER", "SearchLog", "TrialRecord", "TrialState", "read_trials", "trial_name"]

TRIALS_FOLDER = "trials"
TrialState = Literal["running", "done", "stopped", "failed"]


def trial_name(number: int) -> str:
    """Folder of a trial below `trials/`: its number from 0, as four digits."""
    return f"{number:04d}"


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: of the trial, from 0, in the order in which trials were suggested.
        point: of the point in the search space, from 0; the repeats of a point share it.
        seed: of this repeat; None where a point is run once as it is.
        params: parameter → value.
        sampled: what the search algorithm proposed, where that differs from `params`.
        state: "running" also after a kill; "stopped" early, by a scheduler, a target or a time budget.
        value: the metric, None when it has none.
        metrics: last value of everything that was reported.
        history: the metric's values, in the order in which they were reported.
        reason: why it failed or was stopped.
        seconds: how long it ran, its attempts together.
        attempts: how often it was started.
        cached: how many of its jobs were there already, and how many it has.
    """

    number: int
    point: int
    params: Mapping[str, Any]
    seed: int | None = None
    sampled: Mapping[str, Any] | None = None
    state: TrialState = "running"
    value: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[float, ...] = ()
    reason: str = ""
    seconds: float = 0.0
    attempts: int = 1
    cached: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """The trial's folder below `trials/`."""
        return trial_name(self.number)


class SearchLog:
    """Writes the events of trials to the search's journal, and knows what it says.

    Args:
        journal: of the search; open.
        path: of its file, read once.
    """

    def __init__(self, journal: Journal, path: Path) -> None:
        self._journal = journal
        self.trials = {record.number: record for record in read_trials(path)}

    def started(self, record: TrialRecord) -> None:
        """Notes that a trial is about to run; on disk on return, so that it is never lost."""
        before = self.trials.get(record.number)
        attempts = before.attempts + 1 if before else 1
        self.trials[record.number] = replace(record, state="running", attempts=attempts)
        self._journal.emit(
            "trial_started",
            trial=record.name,
            number=record.number,
            point=record.point,
            seed=record.seed,
            params=dict(record.params),
            sampled=None if record.sampled is None else dict(record.sampled),
        )

    def ended(self, record: TrialRecord) -> None:
        """Notes how a trial ended."""
        self.trials[record.number] = record
        self._journal.emit(
            "trial_ended",
            trial=record.name,
            number=record.number,
            params=dict(record.params),
            state=record.state,
            value=record.value,
            metrics=dict(record.metrics),
            history=list(record.history),
            reason=record.reason,
            seconds=round(record.seconds, 3),
            cached=list(record.cached),
        )


def read_trials(path: Path) -> list[TrialRecord]:
    """The trials of a journal, by number; of one that was run again, its last end."""
    found: dict[int, TrialRecord] = {}
    for event in _trial_events(path):
        number = int(event["number"])
        if event["event"] == "trial_started":
            attempts = found[number].attempts + 1 if number in found else 1
            found[number] = TrialRecord(
                number, int(event["point"]), event["params"], event["seed"], event["sampled"], attempts=attempts
            )
        elif number in found:
            found[number] = replace(
                found[number],
                params=event["params"],
                state=event["state"],
                value=event["value"],
                metrics=event["metrics"],
                history=tuple(event["history"]),
                reason=event["reason"],
                seconds=float(event["seconds"]),
                cached=(int(event["cached"][0]), int(event["cached"][1])),
            )
    return [found[number] for number in sorted(found)]


def _trial_events(path: Path) -> Iterator[Mapping[str, Any]]:
    return (event for event in read_events(path) if event["event"] in ("trial_started", "trial_ended"))
