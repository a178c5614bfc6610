"""What becomes of the trials of a search: in the journal first, then in status, metrics and view."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from raysandbox.core.disk import write_failure
from raysandbox.core.redact import redact_text
from raysandbox.hpo.room import Room
from raysandbox.hpo.schema import Search
from raysandbox.hpo.searchers import Suggestion, TrialSearcher
from raysandbox.hpo.trial import OBJECTIVE, OUTCOME
from raysandbox.report.search import best_trial
from raysandbox.runtime.actors import LOST_TRIES
from raysandbox.runtime.watcher_actor import WatcherClient, call_actor
from raysandbox.sandbox.state import Status
from raysandbox.sandbox.trials import TRIALS_FOLDER, SearchLog, TrialRecord
from raysandbox.sandbox.view import RunView

__all__ = ["Recorder", "callback"]

_EARLY = "stopped early by the scheduler"


@dataclass
class Recorder:
    """Writes what becomes of the trials to the journal, status, metrics and view.

    Attributes:
        hub: the actor that watches the trials, while they run.
        ended: numbers of the trials that have ended, in this search's life.
    """

    search: Search
    log: SearchLog
    searcher: TrialSearcher
    watcher: WatcherClient
    status: Status
    view: RunView
    run_id: str
    hub: Any = None
    ended: set[int] = field(default_factory=set)
    _histories: dict[int, list[float]] = field(default_factory=dict)
    _began: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for record in self.log.trials.values():
            if record.state != "running" and not (record.state == "failed" and self.search.rerun_failed):
                self.ended.add(record.number)
                self._tell_status(record)

    def suggested(self, suggestion: Suggestion) -> None:
        """A trial is about to start; on disk on return."""
        record = TrialRecord(
            suggestion.number, suggestion.point, suggestion.params, suggestion.seed, suggestion.sampled
        )
        self.log.started(record)
        self._began[record.number] = time.monotonic()
        self._histories[record.number] = []
        self._tell_status(record)

    def reading(self, number: int, iteration: int, value: float) -> None:
        """A running trial reported the metric, the first time as iteration 1; again where Tune began it anew."""
        self._histories[number] = [*self._histories[number][: iteration - 1], value]

    def end(self, config: Mapping[str, Any], last: Mapping[str, Any], error: str = "") -> None:
        """A trial ended.

        Args:
            config: what Tune gave it; a scheduler may have changed the values on the way.
            last: its last result.
            error: why Tune gave it up.

        Raises:
            WriteFailed: it failed since the disk is full or read-only: it is left unfinished, to be run again.
        """
        number = config["number"]
        if number in self.ended:
            return
        before = replace(self.log.trials[number], params=config["params"])
        history = tuple(self._histories.get(number, ()))
        seconds = before.seconds + time.monotonic() - self._began.get(number, time.monotonic())
        told = last.get(OUTCOME)
        record = replace(before, history=history, seconds=seconds)
        if told is None:
            value = history[-1] if history else None
            state, reason = ("failed", redact_text(error)) if error else ("stopped", _EARLY)
            record = replace(record, state=state, value=None if error else value, reason=reason)
            with suppress(OSError):
                call_actor(self.hub, "interrupt", f"{self.run_id}-{record.name}")
        else:
            record = replace(record, metrics=told["metrics"], cached=tuple(told["cached"]), reason=told["reason"])
            if told["state"] == "done":
                record = replace(record, state="done", value=told["value"], history=history or (told["value"],))
            else:
                record = replace(record, state="failed", value=None, reason=record.reason or "it was interrupted")
        failure = RuntimeError(record.reason) if record.state == "failed" else None
        if failure is not None and (unwritable := write_failure(failure, self.status.path.parent)) is not None:
            raise unwritable
        self.ended.add(number)
        self.log.ended(record)
        self.searcher.ended(number, record.value)
        self._tell(record)

    @property
    def unfinished(self) -> int:
        """How many trials have begun and not ended."""
        return sum(record.state == "running" for record in self.log.trials.values())

    def flush(self) -> None:
        """What was reported is with the watcher."""
        self.watcher.flush()

    def _tell(self, record: TrialRecord) -> None:
        best = best_trial(list(self.log.trials.values()), self.search.metric.goal)
        if record.value is not None:
            values = {"trial.value": record.value, "trial.seconds": record.seconds}
            values |= {f"trial.{name}": value for name, value in record.params.items()}
            values |= {} if best is None else {"best.value": best.value}
            self.watcher.report(values, step=record.number)
        self._tell_status(record)
        self.view.trial_ended(record, best)

    def _tell_status(self, record: TrialRecord) -> None:
        states: dict[str, Any] = {"running": "pending", "stopped": "done"}
        self.status.job(f"{TRIALS_FOLDER}/{record.name}", states.get(record.state, record.state))


def callback(recorder: Recorder, room: Room) -> Any:
    """The recorder as a callback of Tune, which also looks whether trials find room."""
    from ray import tune

    class Recording(tune.Callback):
        def __reduce__(self) -> Any:
            return tune.Callback, ()  # for Tune's own state, from which nothing is ever read

        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            room.look(trial.status for trial in trials)

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if OBJECTIVE in result and OUTCOME not in result:
                recorder.reading(trial.config["number"], result["training_iteration"], result[OBJECTIVE])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            recorder.end(trial.config, trial.last_result or {})

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            text = str(trial.get_error() or "its process died").strip().splitlines()[-1]
            recorder.end(trial.config, {}, f"Ray Tune gave it up after {LOST_TRIES + 1} tries: {text}")

    return Recording()
