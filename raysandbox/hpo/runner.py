"""The process that runs trials, one after the other: an experiment each, on the driver's node."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import RunInterrupted, SandboxError, WorkDirBusyError
from raysandbox.core.events import read_events
from raysandbox.core.files import atomic_write
from raysandbox.core.keys import canonical_json
from raysandbox.core.redact import redact, redact_text, remember_secrets
from raysandbox.hpo.objective import Objective
from raysandbox.runtime.placement import holding
from raysandbox.runtime.session import join_as_worker
from raysandbox.runtime.watcher_actor import WatcherClient
from raysandbox.runtime.watcher_hub import Watchers
from raysandbox.sandbox.experiment import RunResult, TrialPlace, run_experiment
from raysandbox.watcher.config import WatchConfig
from raysandbox.watcher.metrics import from_json

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

__all__ = ["Errand", "Outcome", "TrialRunner", "start_runner"]

logger = logging.getLogger(__name__)
_FREE_S = 20.0  # until the process that had the trial before must have ended
_POLL_S = 0.1


@dataclass(frozen=True)
class Errand:
    """One trial to be run.

    Attributes:
        config: its configuration.
        work_dir: of the search.
        root: where relative outputs start.
        cache_dir: what runs share.
        folder: of the trial, below work_dir.
        run_id: of the trial.
        use_cache: whether caches may be read.
        objective: what its value is.
        watchers: where its metrics go.
        secrets: that the driver knows of; the process of a trial need not have the driver's environment.
    """

    config: SandboxConfig
    work_dir: Path
    root: Path | None
    cache_dir: Path
    folder: str
    run_id: str
    use_cache: bool
    objective: Objective
    watchers: Watchers
    secrets: frozenset[str] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended in its process.

    Attributes:
        state: "interrupted" where somebody ended it.
        value: the metric.
        metrics: last value of every number that was reported.
        reason: why it failed.
        cached: how many of its jobs were there already, and how many ended.
    """

    state: Literal["done", "failed", "interrupted"]
    value: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    cached: tuple[int, int] = (0, 0)


class TrialRunner:
    """The actor.

    Args:
        folder: the driver's current directory.
        local: whether the driver has a Ray of its own.
        group: bundles for the jobs' workers; None where jobs ask for their own.
    """

    def __init__(self, folder: Path, local: bool, group: PlacementGroup | None) -> None:
        os.chdir(folder)
        join_as_worker(local=local)
        self._group = group

    def run(self, errand: Errand) -> Outcome:
        """Runs a trial to its end; whatever a user can mend is an outcome, not an error."""
        remember_secrets({"secrets": list(errand.secrets)})
        place = TrialPlace(
            errand.work_dir, errand.root, errand.cache_dir, errand.folder, errand.run_id, partial(_watch, errand)
        )
        folder = errand.work_dir / errand.folder
        began = time.time()
        try:
            with holding(self._group):
                result = _run_when_free(errand, place)
            metrics = _last_metrics(folder)
            value = errand.objective.value(result.context_infos, metrics)
            return Outcome("done", value, _numbers(metrics), cached=_cached(folder, began))
        except (RunInterrupted, KeyboardInterrupt):
            return Outcome("interrupted", metrics=_numbers(_last_metrics(folder)), cached=_cached(folder, began))
        except SandboxError as error:
            return self._failed(folder, str(error), began)
        except Exception as error:  # a defect of a component: the other trials go on
            logger.exception("trial %s failed", errand.folder)
            return self._failed(folder, f"{type(error).__name__}: {error}", began)

    def _failed(self, folder: Path, reason: str, began: float) -> Outcome:
        return Outcome("failed", None, _numbers(_last_metrics(folder)), redact_text(reason), _cached(folder, began))


def _run_when_free(errand: Errand, place: TrialPlace) -> RunResult:
    """Runs the experiment; a trial that Tune or a person starts again goes on with what stands in its folder.

    The process that had the trial before, given up by Tune or left by a driver that was killed, may take a
    moment to end.

    Raises:
        WorkDirBusyError: what holds the folder is no such process, or does not end.
    """
    folder = errand.work_dir / errand.folder
    began = time.monotonic()
    while True:
        try:
            return run_experiment(errand.config, resume=True, use_cache=errand.use_cache, trial=place)
        except WorkDirBusyError:
            waited = time.monotonic() - began
            if waited > _FREE_S:
                raise
            if waited > _FREE_S / 2:
                _end_holder(folder)
            time.sleep(_POLL_S)


def _end_holder(folder: Path) -> None:
    """Ends the process that holds a trial's folder, if it is one of ours on this machine."""
    with suppress(OSError, ValueError):
        pid = int((folder / ".lock").read_text())
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"ray::{TrialRunner.__name__}".encode()):
            os.kill(pid, signal.SIGKILL)


def _watch(errand: Errand, config: WatchConfig) -> WatcherClient:
    """Opens the trial's watcher; values of the metric by other parameters are not the trial's any more."""
    folder = errand.work_dir / errand.folder
    note, params = folder / "params.json", canonical_json(redact(errand.watchers.params))
    if note.exists() and note.read_text(encoding="utf-8") != params:
        lines = [line for line in read_events(folder / "metrics.jsonl") if line["name"] != errand.watchers.metric]
        kept = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        atomic_write(folder / "metrics.jsonl", kept)
    atomic_write(note, params)
    return errand.watchers.open(config)


def start_runner(node: str, folder: Path, local: bool, group: PlacementGroup | None) -> Any:
    """Starts a runner on the driver's node, outside of the trial's bundles: Ray Data does not fit into them.

    Args:
        node: id of the driver's node, where the work_dir is.
        folder: the driver's current directory.
        local: whether the driver has a Ray of its own.
        group: bundles for the jobs' workers.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(TrialRunner).options(num_cpus=0, scheduling_strategy=where).remote(folder, local, group)


def _last_metrics(folder: Path) -> dict[str, Any]:
    """The last value of every metric that a trial reported."""
    return {line["name"]: from_json(line["value"]) for line in read_events(folder / "metrics.jsonl")}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def _cached(folder: Path, since: float) -> tuple[int, int]:
    """How many jobs were there already, and how many ended, since a time."""
    events = [event["event"] for event in read_events(folder / "journal.jsonl") if event["t"] > since - 0.01]
    cached = events.count("job_cached")
    return cached, cached + events.count("job_done")
