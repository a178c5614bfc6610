"""Running jobs: look each up by content, run it, mark it done."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raysandbox.config.schema import JobEntry
from raysandbox.core.disk import writes
from raysandbox.core.errors import JobFailed, JobTimeout, UserError
from raysandbox.core.events import Journal, read_events
from raysandbox.core.files import atomic_write, link_or_copy, remove
from raysandbox.core.locks import KeyLocks
from raysandbox.core.progress import Progress
from raysandbox.core.redact import redact_text
from raysandbox.hooks.base import Hook, JobContext
from raysandbox.runtime.signals import deadline
from raysandbox.runtime.telemetry import Level, count, measured_as
from raysandbox.runtime.watcher_actor import WatcherClient
from raysandbox.sandbox.admission import NOTHING, Demand
from raysandbox.sandbox.context import ContextInfos, plain
from raysandbox.sandbox.drafts import same_path
from raysandbox.sandbox.job_log import job_log
from raysandbox.sandbox.manifest import Manifest, Marker
from raysandbox.sandbox.paths import standing
from raysandbox.sandbox.plan import PlannedJob
from raysandbox.sandbox.resolve import ReadyJob, Resolver, joined
from raysandbox.sandbox.schedule import Piece
from raysandbox.sandbox.shared import SharedResults, rebase
from raysandbox.sandbox.state import JobState, Status, own_files
from raysandbox.sandbox.view import RunView
from raysandbox.watcher.metrics import from_json

__all__ = ["JobRunner", "JobTurn"]

logger = logging.getLogger(__name__)
_POLL_S = 0.2
_KEPT_METRICS = "metrics.jsonl"  # among the artefacts of a job that runs share: what it reported


@dataclass
class JobRunner:
    """Runs the jobs of one experiment.

    Attributes:
        folder: the run's.
        resolver: puts configurations together.
        context: outputs so far.
        manifest: markers of finished jobs.
        status: `status.json`.
        journal: `journal.jsonl`.
        watcher: receives metrics.
        view: shows progress.
        cache_dir: what runs share.
        use_cache: whether caches may be read.
        shared: results that this run has in common with others; None for none.
    """

    folder: Path
    resolver: Resolver
    context: ContextInfos
    manifest: Manifest
    status: Status
    journal: Journal
    watcher: WatcherClient
    view: RunView
    cache_dir: Path
    use_cache: bool
    shared: SharedResults | None = None
    _working: dict[str, threading.Lock] = field(default_factory=dict)

    def run(self, planned: PlannedJob, scope: str, updates: Mapping[str, Any]) -> None:
        """Runs a job here and now, or takes it from its marker.

        Args:
            planned: the job.
            scope: folder below work_dir of this iteration, "" for none.
            updates: values of `iter_updater` for its configuration.

        Raises:
            JobFailed: it ended without its outputs.
        """
        turn = JobTurn(self, planned, scope, updates)
        turn.begin()
        try:
            turn.end([piece.work() for piece in turn.prepare()])
        except UserError as error:
            turn.fail(error)
            raise

    def take(self, ready: ReadyJob) -> _Outcome | None:
        """What is known of one run of a job that is done; None where it is to be done."""
        found = self.manifest.find(ready.key) if ready.reusable else None
        return None if found is None else _Outcome(self._reuse(ready, found), cached=True)

    def do(self, ready: ReadyJob, progress: Progress) -> _Outcome:
        """Does one run of a job, or takes what an equal one has just made, or another experiment."""
        with self._alone(ready.key):
            if (found := self.take(ready)) is not None:
                return found
            if self.shared is not None and ready.shareable:
                return _Outcome(*self._share(ready, self.shared))
            return _Outcome(self._execute(ready, progress), cached=False)

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """While the block runs no other thread does equal work, such as that of an equal element."""
        lock = self._working.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=_POLL_S):  # waits: the other one's end, however it ends
            pass
        try:
            yield
        finally:
            lock.release()

    def _share(self, ready: ReadyJob, shared: SharedResults) -> tuple[Marker, bool]:
        """Takes a job from another run, or does it for all; a second one that needs it meanwhile waits."""
        start = time.monotonic()
        artifacts = self._artifacts(ready)
        locks = KeyLocks(self.cache_dir / "locks")
        with locks.hold([f"job-{ready.key}"], lambda holder: self._waits(ready, holder)):
            writes = [*ready.paths.writes, str(self._quarantine(ready))]
            others, copied = self._others(ready.paths.writes), ready.kept_artifacts
            outputs = shared.take(ready.key, writes, artifacts, others=others, copied=copied)
            if outputs is None:
                marker = self._execute(ready, self.view)
                if self.resolver.reads_as_before(ready):
                    # A key does not say where the search's folder is: what names that folder serves no other one.
                    place = str(self.resolver.work_dir)
                    made = (marker.outputs, writes, artifacts, marker.seconds, marker.job)
                    shared.keep(ready.key, *made, place=place, others=others, copied=copied)
                else:
                    self.view.note(f"job {ready.job.id} read files that changed meanwhile: it is not kept for others")
                    self.journal.emit("job_inputs_changed", job=ready.job.id, key=ready.key)
                return marker, False
        report = self.watcher.scoped(ready.job.name, ready.job.id, ready.key)
        for line in read_events(artifacts / _KEPT_METRICS):
            report({line["name"]: from_json(line["value"])}, line["step"])
        report(outputs)  # not among those lines
        self.watcher.flush()
        self.journal.emit("job_cached", job=ready.job.id, key=ready.key, scope=ready.scope, shared=True)
        return self._mark(ready, outputs, time.monotonic() - start), True

    def _waits(self, ready: ReadyJob, holder: str) -> None:
        self.journal.emit("job_waits", job=ready.job.id, key=ready.key, holder=holder)
        self.view.note(f"job {ready.job.id} waits for an equal one: {holder}")

    def _artifacts(self, ready: ReadyJob) -> Path:
        return self.folder / "artifacts" / ready.scope / ready.slug

    def _quarantine(self, ready: ReadyJob) -> Path:
        return self.folder / "quarantine" / ready.scope / ready.slug

    def _reuse(self, ready: ReadyJob, marker: Marker) -> Marker:
        """Takes a finished job; outputs of another iteration are linked to where this one's belong."""
        moves: dict[str, str] = {}
        for old, new in zip(marker.writes, ready.paths.writes, strict=True):
            if old != new:
                for file in standing(old):  # several where the output is in shards
                    link_or_copy(Path(file), Path(new).with_name(Path(file).name) if file != old else Path(new))
                moves[old] = new
        self.journal.emit("job_cached", job=ready.job.id, key=ready.key, scope=ready.scope)
        return replace(marker, outputs=rebase(marker.outputs, moves))

    def measured(self, entry: JobEntry) -> contextlib.AbstractContextManager[None]:
        """While it is open, what this thread counts is counted for the job."""
        return measured_as(self.journal.run_id, entry.id, entry.config.hook)

    def _execute(self, ready: ReadyJob, progress: Progress) -> Marker:
        with self.measured(ready.planned.entry):
            running = Level("jobs_running")
            running.set(1)
            try:
                return self._do(ready, progress)
            finally:
                running.set(0)

    def _do(self, ready: ReadyJob, progress: Progress) -> Marker:
        entry = ready.planned.entry
        folder = os.path.join(ready.scope, ready.slug)
        context = JobContext(
            artifacts=self._artifacts(ready),
            quarantine=self._quarantine(ready),
            log=self.folder / "logs" / f"{folder}.log",
            report=self.watcher.scoped(ready.job.name, ready.job.id, ready.key),
            progress=progress,
            probe=ready.probe,
            cache_dir=self.cache_dir,
            use_cache=self.use_cache,
            allow_user_code=self.resolver.plan.config.allow_user_code,
            expect_repeats=self.shared is not None,
            emit=self.journal.emit,
        )
        configurations = {"dj_configs": ready.job.recipe, "extra_configs": ready.job.extra}
        self.watcher.watch_cfgs([(config, f"{entry.id}.{part}") for part, config in configurations.items() if config])
        start = time.monotonic()
        with job_log(context.log):
            values, reported = self._attempts(ready, ready.planned.hook(), context)
        outputs = _name_outputs(entry, values)
        missing = [path for path in ready.paths.writes if not standing(path)]
        if missing:
            raise JobFailed(f"job {entry.id} ended without writing {', '.join(missing)}")
        if self.shared is not None and ready.shareable:
            self.watcher.flush()
            _keep_metrics(self._metrics, reported, ready, context.artifacts)
        context.report(outputs)
        self.watcher.flush()
        marker = self._mark(ready, outputs, time.monotonic() - start)
        self.journal.emit("job_done", job=entry.id, key=ready.key, scope=ready.scope, seconds=marker.seconds)
        return marker

    def _mark(self, ready: ReadyJob, outputs: Mapping[str, Any], seconds: float) -> Marker:
        """Puts the marker of a job in place whose outputs and artefacts stand."""
        artifacts, writes = str(self._artifacts(ready)), list(ready.paths.writes)
        files = [file for path in writes for file in standing(path)]
        digests = self.manifest.digests(files, self._others(writes)) | self.manifest.digests([artifacts], ())
        marker = Marker(ready.key, ready.job.id, outputs, writes, artifacts, digests, round(seconds, 3))
        self.manifest.write(marker)
        return marker

    def _others(self, writes: Sequence[str]) -> set[str]:
        """What below the outputs of a job belongs to the run or to other jobs."""
        return self.resolver.of_others().union(own_files(self.folder)).difference(map(same_path, writes))

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def _attempts(self, ready: ReadyJob, hook: Hook, context: JobContext) -> tuple[list[Any], int]:
        """Returns what the hook returned, and the size of `metrics.jsonl` when the attempt that succeeded began."""
        config = ready.planned.entry.config
        for attempt in range(config.retries + 1):
            self.watcher.flush()
            reported = self._metrics.stat().st_size if self._metrics.exists() else 0
            self.journal.emit("job_started", job=ready.job.id, key=ready.key, scope=ready.scope, attempt=attempt)
            _clear(context.artifacts, ready.kept_artifacts)
            try:
                with deadline(config.timeout_s), writes(context.artifacts):
                    return list(hook.run(ready.job, context)), reported
            except JobTimeout as error:
                message = f"job {ready.job.id} ran past its timeout_s of {config.timeout_s:g} s"
                failure, cause = JobTimeout(message), error
            except UserError as error:
                failure, cause = JobFailed(f"job {ready.job.id} failed: {error}"), error
            except Exception as error:
                logger.exception("job %s failed", ready.job.id)
                message = f"job {ready.job.id} failed: {type(error).__name__}: {error} (traceback in {context.log})"
                failure, cause = JobFailed(redact_text(message)), error
            if attempt == config.retries:
                raise failure from cause
            self.journal.emit("job_retried", job=ready.job.id, error=str(failure), attempt=attempt)
            self.view.note(f"{failure}; trying again")
        raise AssertionError("unreachable: the last attempt returns or raises")


@dataclass(frozen=True)
class _Outcome:
    """One run of a job, and whether it was there already."""

    marker: Marker
    cached: bool


@dataclass
class JobTurn:
    """A job whose turn has come: a `schedule.Turn`.

    Attributes:
        runner: runs it.
        planned: the job.
        scope: folder below work_dir of this iteration, "" for none.
        updates: values of `iter_updater` for its configuration.
        demand: what each of its runs needs.
    """

    runner: JobRunner
    planned: PlannedJob
    scope: str
    updates: Mapping[str, Any]
    demand: Demand = NOTHING
    _start: float = 0.0
    _working_since: float | None = None  # it may have waited for room before

    def begin(self) -> None:
        """Shows it."""
        self._start = time.monotonic()
        self.runner.view.job_started(self.planned.entry)

    def prepare(self) -> list[Piece]:
        """Its runs: one, or one per element of its `foreach`; those that are done are taken, not run."""
        units = self.runner.resolver.units(self.planned, self.scope, self.updates)
        return [self._piece(ready) for ready in units]

    def _piece(self, ready: ReadyJob) -> Piece:
        found = self.runner.take(ready)
        if found is not None:
            return Piece(ready.slug, NOTHING, lambda: found)

        def work() -> _Outcome:
            self._working_since = self._working_since or time.monotonic()
            with self.runner.view.job_progress(ready.slug) as progress:
                return self.runner.do(ready, progress)

        return Piece(ready.slug, self.demand, work)

    def end(self, results: Sequence[_Outcome]) -> None:
        """Files what it returned.

        Raises:
            JobFailed: an element of its `foreach` lacks an output.
        """
        entry, runner = self.planned.entry, self.runner
        for outcome in results:
            runner.resolver.finished(self.planned, outcome.marker)
        runner.context.record(entry, joined(entry, [outcome.marker.outputs for outcome in results]))
        state: JobState = "cached" if results and all(outcome.cached for outcome in results) else "done"
        runner.status.job(entry.id, state)
        self._ended(state, sum(outcome.cached for outcome in results))

    def fail(self, error: UserError) -> None:
        """Writes down why it failed."""
        entry, runner, seconds = self.planned.entry, self.runner, self._seconds()
        runner.status.job(entry.id, "failed")
        runner.journal.emit("job_failed", job=entry.id, error=str(error), seconds=round(seconds, 3))
        self._ended("failed")

    def give_up(self) -> None:
        """Writes down that it was ended before its time; it stays pending, and is done by `resume`."""
        entry, runner, seconds = self.planned.entry, self.runner, self._seconds()
        runner.journal.emit("job_given_up", job=entry.id, seconds=round(seconds, 3))
        self._ended("pending")

    def _ended(self, state: str, cached: int = 0) -> None:
        """Shows and counts it; `cached` of its runs were taken instead of done."""
        self.runner.view.job_ended(self.planned.entry, state, self._seconds())
        with self.runner.measured(self.planned.entry):
            count("jobs_ended", label=state)
            count("cache_hits", cached, "job")

    def _seconds(self) -> float:
        return time.monotonic() - (self._working_since or self._start)


def _clear(artifacts: Path, kept: frozenset[str]) -> None:
    """Empties the folder of a job that begins anew, but for what its component goes on from."""
    artifacts.mkdir(parents=True, exist_ok=True)
    for path in artifacts.iterdir():
        if path.name not in kept:
            remove(path)


def _keep_metrics(path: Path, start: int, ready: ReadyJob, artifacts: Path) -> None:
    """Puts the numbers that a job reported beside what it made, for the runs that take it instead of running it.

    Args:
        path: the run's metrics.
        start: length of that file in bytes when the job began: lines before are of attempts that failed.
        ready: the job.
        artifacts: its own folder.
    """
    lines = [
        {"name": line["name"].removeprefix(f"{ready.job.name}."), "value": line["value"], "step": line["step"]}
        for line in read_events(path, start)
        if line.get("unit") == ready.key and isinstance(from_json(line["value"]), int | float)
    ]
    atomic_write(artifacts / _KEPT_METRICS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _name_outputs(entry: JobEntry, values: list[Any]) -> dict[str, Any]:
    names = entry.config.output
    if len(names) > len(values):
        raise JobFailed(
            f"job {entry.id} returned {len(values)} values; `output` names {len(names)}: {', '.join(names)}"
        )
    unpacked = [value[0] if isinstance(value, list | tuple) and len(value) == 1 else value for value in values]
    return {name: plain(value, entry.id) for name, value in zip(names, unpacked, strict=False)}
