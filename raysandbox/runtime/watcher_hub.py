"""The watchers of a search's trials, all in one process, and the values that their search waits for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from raysandbox.core.events import read_events
from raysandbox.core.redact import redact
from raysandbox.runtime.watcher_actor import WatcherClient, actor_beside, call_actor
from raysandbox.watcher.config import WatchConfig
from raysandbox.watcher.metrics import Metric, from_json
from raysandbox.watcher.sinks import SinkState
from raysandbox.watcher.watcher import SandboxWatcher

__all__ = ["HubTransport", "Reading", "Watchers", "start_hub"]

_THREADS = 64  # each trial has one call that waits for news, and its jobs send theirs
_CLOSERS = 4  # wandb takes about a second to end a run
_FINISH_S = 30.0
_REMEMBERED = 1000  # trials that have ended, whose last values may still be asked for


class Reading(NamedTuple):
    """A reported value of the metric that a search goes by."""

    value: Any
    step: int | None
    unit: str = ""  # of work: steps count within one


@dataclass(frozen=True)
class Watched:
    """A trial to be watched.

    Attributes:
        config: names and places.
        search: the search's configuration, for wandb; None for none.
        metric: name of the metric that the search goes by, if it is reported on the way.
        pid: of the process that runs the trial, on the hub's machine.
        params: the trial's values of the search's parameters, for wandb.
        attempt: names this run of the trial, of which there may be several.
    """

    config: WatchConfig
    search: Mapping[str, Any] | None
    metric: str | None
    pid: int
    params: Mapping[str, Any] = field(default_factory=dict)
    attempt: str = ""


@dataclass
class _Trial:
    """What the hub holds for a trial that runs now.

    Attributes:
        watcher: its watcher.
        metric: name of the metric that its search goes by.
        pid: of the process that runs it, on this machine.
        attempt: names this run of the trial.
        readings: reported values of the metric.
    """

    watcher: SandboxWatcher
    metric: str | None
    pid: int
    attempt: str
    readings: list[Reading] = field(default_factory=list)


class WatcherHub:
    """The actor; its methods run in threads.

    Args:
        environment: the driver's wandb variables.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._trials: dict[str, _Trial] = {}
        self._ended: dict[str, tuple[str, list[Reading]]] = {}  # trial → its last attempt and readings
        self._news = threading.Condition()
        self._closers = ThreadPoolExecutor(_CLOSERS, thread_name_prefix="closing")
        self._closing: list[Any] = []

    def open(self, watched: Watched) -> None:
        """Begins to watch a trial; one of the same id that was left behind is given up."""
        config, metric = watched.config, watched.metric
        self._give_up(config.run_id)
        earlier = read_events(config.work_dir / "metrics.jsonl") if metric else ()
        readings = [
            Reading(from_json(line["value"]), line["step"], line["unit"]) for line in earlier if line["name"] == metric
        ]
        watcher = SandboxWatcher(config)
        if watched.search is not None:
            watcher.setup_sweep(watched.search, config.project)
            watcher.watch_cfgs([(watched.params, "params")])
        with self._news:
            self._ended.pop(config.run_id, None)
            self._trials[config.run_id] = _Trial(watcher, metric, watched.pid, watched.attempt, readings)

    def append(self, run: str, client: str, first: int, metrics: Sequence[Metric]) -> bool:
        """Records a batch of a trial's client; returns whether the trial is known, since a hub may die."""
        trial = self._trials.get(run)
        if trial is None:
            return run in self._ended  # too late: passed over
        new = trial.watcher.append(client, first, metrics)
        readings = [Reading(m.value, m.step, m.unit) for m in metrics[len(metrics) - new :] if m.name == trial.metric]
        if readings:
            with self._news:
                trial.readings += readings
                self._news.notify_all()
        return True

    def readings(self, run: str, seen: int, patience: float, attempt: str = "") -> list[Reading]:
        """An attempt's values of the metric, with those of attempts before that it goes on from.

        Returns:
            all but the first `seen`; waits for one, or the end, for at most `patience` seconds.
        """

        def news() -> list[Reading]:
            trial = self._trials.get(run)
            last, readings = (trial.attempt, trial.readings) if trial else self._ended.get(run, ("", []))
            return readings[seen:] if last == attempt else []

        with self._news:
            self._news.wait_for(lambda: news() or self._ended.get(run, (None,))[0] == attempt, patience)
            return news()

    def interrupt(self, run: str, attempt: str = "") -> bool:
        """Ends a trial softly, or only one attempt of it; returns whether it ran."""
        trial = self._trials.get(run)
        if trial is None or (attempt and trial.attempt != attempt):
            return False
        with suppress(ProcessLookupError):
            os.kill(trial.pid, signal.SIGTERM)  # workers of Ray block SIGINT
        return True

    def query(self, run: str, name: str) -> Any:
        """See `Transport`."""
        trial = self._trials.get(run)
        return trial.watcher.query(name) if trial else None

    def watch_cfgs(self, run: str, cfgs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """See `Transport`."""
        if run in self._trials:
            self._trials[run].watcher.watch_cfgs(cfgs)

    def setup_sweep(self, run: str, hpo_config: Mapping[str, Any], project: str) -> str:
        """See `Transport`."""
        return self._trials[run].watcher.setup_sweep(hpo_config, project)

    def sync(self, run: str) -> None:
        """See `Transport`."""
        if run in self._trials:
            self._trials[run].watcher.sync()

    def finish(self, run: str) -> SinkState:
        """Ends the watching of a trial; wandb gets its rest while the next trial runs."""
        with self._news:
            trial = self._trials.pop(run, None)
            if trial is not None:
                self._ended[run] = trial.attempt, trial.readings
            else:
                self._ended.setdefault(run, ("", []))
            if len(self._ended) > _REMEMBERED:
                del self._ended[next(iter(self._ended))]
            self._news.notify_all()
        if trial is not None:
            trial.watcher.sync()
            self._closing.append(self._closers.submit(trial.watcher.finish, _FINISH_S))
        return SinkState("closing")

    def close(self, patience: float) -> list[str]:
        """Waits until wandb has everything, for at most `patience` seconds; returns what failed."""
        for run in list(self._trials):
            self._give_up(run)
        end = time.monotonic() + patience
        errors = []
        for closing in self._closing:
            try:
                state = closing.result(max(end - time.monotonic(), 0.0))
            except TimeoutError:
                errors.append(f"wandb did not finish within {patience:g} s")
            else:
                errors += [state.error] if state.error else []
        return errors

    def _give_up(self, run: str) -> None:
        if run in self._trials:
            self.finish(run)


@dataclass(frozen=True)
class HubTransport:
    """The way of a trial's clients to its watcher; errors become `OSError`. Picklable.

    Attributes:
        hub: handle of the actor.
        watched: the trial.
    """

    hub: Any
    watched: Watched

    @property
    def run(self) -> str:
        """Id of the trial's run."""
        return self.watched.config.run_id

    def append(self, client: str, first: int, metrics: Sequence[Metric]) -> None:
        """See `Transport`; a hub that was started again is told of the trial."""
        if not call_actor(self.hub, "append", self.run, client, first, list(metrics)):
            call_actor(self.hub, "open", self.watched)
            call_actor(self.hub, "append", self.run, client, first, list(metrics))

    def query(self, name: str) -> Any:
        """See `Transport`."""
        return call_actor(self.hub, "query", self.run, name)

    def watch_cfgs(self, cfgs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        """See `Transport`."""
        call_actor(self.hub, "watch_cfgs", self.run, list(cfgs))

    def setup_sweep(self, hpo_config: Mapping[str, Any], project: str) -> str:
        """See `Transport`."""
        return call_actor(self.hub, "setup_sweep", self.run, hpo_config, project)

    def sync(self) -> None:
        """See `Transport`."""
        call_actor(self.hub, "sync", self.run)

    def finish(self, timeout: float = _FINISH_S) -> SinkState:
        """See `Transport`; what is left is given to wandb later."""
        return call_actor(self.hub, "finish", self.run, patience=timeout)


@dataclass(frozen=True)
class Watchers:
    """Opens watchers of trials in the hub. Picklable.

    Attributes:
        hub: handle of the actor.
        search: the search's configuration, for wandb; None for none.
        metric: name of the metric whose values the search waits for.
        params: the trial's values of the search's parameters, for wandb.
        attempt: names the run of the trial.
    """

    hub: Any
    search: Mapping[str, Any] | None
    metric: str | None
    params: Mapping[str, Any] = field(default_factory=dict)
    attempt: str = ""

    def open(self, config: WatchConfig) -> WatcherClient:
        """Begins to watch the trial that this process runs, under the name of its folder.

        Raises:
            OSError: the hub does not answer.
        """
        named = replace(config, experiment=f"{config.experiment}-{config.work_dir.name}")
        watched = Watched(named, self.search, self.metric, os.getpid(), redact(self.params), self.attempt)
        call_actor(self.hub, "open", watched)
        return WatcherClient(HubTransport(self.hub, watched))


def start_hub(name: str) -> Any:
    """Starts the hub of a search on this node; it is started again when it dies."""
    return actor_beside(WatcherHub, name, max_concurrency=_THREADS)
