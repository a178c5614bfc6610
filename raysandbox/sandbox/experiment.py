"""One experiment: iterations of all pipelines, targets, resume, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.config.documents import to_yaml
from raysandbox.config.schema import JobEntry, SandboxConfig
from raysandbox.core.disk import writes
from raysandbox.core.errors import ConfigError, RunInterrupted, SandboxError, WorkDirBusyError
from raysandbox.core.events import Journal, read_events
from raysandbox.core.files import atomic_write, cache_dir
from raysandbox.core.keys import DigestMemo
from raysandbox.core.leftovers import remove_leftovers, tidy_cache
from raysandbox.core.redact import redact
from raysandbox.runtime.dashboard import dashboard_page, this_driver
from raysandbox.runtime.session import cluster_summary, ensure_ray, in_ray_job, is_connected, this_machine
from raysandbox.runtime.signals import interruptible
from raysandbox.runtime.watcher_actor import WatcherClient, start_watcher
from raysandbox.sandbox.admission import Space, demand_of
from raysandbox.sandbox.context import ContextInfos
from raysandbox.sandbox.jobs import JobRunner, JobTurn
from raysandbox.sandbox.manifest import Manifest
from raysandbox.sandbox.paths import PathMap, output_root
from raysandbox.sandbox.plan import ExperimentPlan, make_plan, split_update
from raysandbox.sandbox.references import resolve_reference
from raysandbox.sandbox.resolve import Resolver
from raysandbox.sandbox.schedule import MOST_AT_ONCE, Schedule
from raysandbox.sandbox.shared import SharedResults
from raysandbox.sandbox.state import RunFolder, Status, give_room, is_other_run, set_aside
from raysandbox.sandbox.view import RunView
from raysandbox.watcher.watcher import WatchConfig

__all__ = ["RunResult", "TrialPlace", "accounted", "locate_run", "note_refusal", "run_experiment"]

logger = logging.getLogger(__name__)
_SILENT_S = 3.0  # how long a run may take to end before it says what it waits for


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        work_dir: its folder.
        context_infos: what the jobs returned, in the format of `context_infos.json`.
        iterations: how many ran.
        unmet: targets that the last iteration did not meet.
    """

    work_dir: Path
    context_infos: list[dict[str, Any]]
    iterations: int
    unmet: tuple[str, ...]


@dataclass(frozen=True)
class TrialPlace:
    """Where a run that is a trial of a search belongs.

    Attributes:
        work_dir: of the search.
        root: where relative outputs start, None for the current directory.
        cache_dir: what runs share.
        folder: its own, below work_dir; what it writes inside work_dir is written there.
        run_id: names it for its watcher, the same whenever it goes on.
        watch: opens its watcher, which belongs to the search.
    """

    work_dir: Path
    root: Path | None
    cache_dir: Path
    folder: str
    run_id: str
    watch: Callable[[WatchConfig], WatcherClient]


def run_experiment(
    config: SandboxConfig,
    *,
    resume: bool = False,
    use_cache: bool = True,
    view: RunView | None = None,
    at_end: Callable[[Path], object] = lambda work_dir: None,
    trial: TrialPlace | None = None,
) -> RunResult:
    """Runs an experiment to its end.

    Args:
        config: what to run.
        resume: go on with the run in work_dir: finished jobs whose keys stand are not run again.
        use_cache: whether caches that runs share may be read.
        view: shows progress.
        at_end: called with the run's folder when jobs have run, however the run ended.
        trial: set where it is a trial: its jobs are then shared with all trials, by content.

    Raises:
        ConfigError: nothing was started.
        WorkDirBusyError: another run holds the work_dir.
        JobFailed: a job failed.
        RunInterrupted: a signal ended it; it can be resumed.
    """
    work_dir, root = (trial.work_dir, trial.root) if trial else locate_run(config)
    plan = make_plan(config, PathMap(work_dir, root))
    resume = resume or config.settings.resume
    experiment = _Experiment(plan, work_dir, root, view or RunView(), resume, use_cache, at_end, trial)
    with RunFolder(experiment.folder):
        return experiment.run()


def locate_run(config: SandboxConfig) -> tuple[Path, Path | None]:
    """The run's folder, and where relative outputs start (None for the current directory)."""
    root = output_root(in_ray_job())
    work_dir = config.settings.work_path.expanduser()
    return (work_dir if root is None else root / work_dir), root


def note_refusal(config: SandboxConfig, error: ConfigError) -> None:
    """Says in `status.json` that a configuration was refused, unless a run holds the folder."""
    work_dir, _ = locate_run(config)
    with contextlib.suppress(WorkDirBusyError, ConfigError), RunFolder(work_dir):
        Status(work_dir / "status.json").end("config_error", 2, str(error))


@contextlib.contextmanager
def accounted(status: Status, work_dir: Path, at_end: Callable[[Path], object]) -> Iterator[None]:
    """Says in `status.json` how the block ended."""
    try:
        with writes(work_dir):
            yield
            remove_leftovers(work_dir, is_others=is_other_run)
            status.end("done", 0)
            at_end(work_dir)
    except RunInterrupted as error:
        _say(work_dir, status.end, "interrupted", 128 + error.signum, str(error))
        _say(work_dir, at_end, work_dir)
        raise
    except SandboxError as error:
        _say(work_dir, status.end, "failed", 1, str(error))
        _say(work_dir, at_end, work_dir)
        raise
    except BaseException as error:  # a defect: said in status.json, and told as it is
        _say(work_dir, status.end, "failed", 1, f"{type(error).__name__}: {error}")
        raise


def _say(work_dir: Path, write: Callable[..., object], *args: Any) -> None:
    """Writes down how a run ended; on a full disk in the room that was kept for it. The error is told anyway."""
    try:
        write(*args)
    except OSError:
        give_room(work_dir)
        try:
            write(*args)
        except OSError as error:
            logger.warning("%s", error)


class _Experiment:
    def __init__(
        self,
        plan: ExperimentPlan,
        work_dir: Path,
        root: Path | None,
        view: RunView,
        resume: bool,
        use_cache: bool,
        at_end: Callable[[Path], object],
        trial: TrialPlace | None,
    ) -> None:
        self.plan = plan
        self.settings = plan.config.settings
        self.work_dir = work_dir
        self.trial = trial
        self.folder = work_dir / trial.folder if trial else work_dir
        self.root = root
        self.view = view
        self.resume = resume
        self.use_cache = use_cache
        self.at_end = at_end
        self.run_id = trial.run_id if trial else f"{self.settings.experiment_name}-{uuid.uuid4().hex[:8]}"

    def run(self) -> RunResult:
        self.status = Status(self.folder / "status.json")
        self._refuse_errors()
        previous = None if self.resume else set_aside(self.folder)
        if previous is not None:
            self.view.note(f"the earlier run in {self.folder} was moved to {previous}")
        if self.root is not None:
            self.view.note(f"outputs go below {self.root} (the cluster's copy of the working directory is temporary)")
        with accounted(self.status, self.folder, self.at_end), ExitStack() as stack:
            stack.enter_context(interruptible(self._mark_interrupted))
            return self._run_inside(stack)

    def _mark_interrupted(self, signum: int) -> None:
        """Says so at once: what ends the process may not wait until all of it has ended."""
        self.status.end("interrupted", 128 + signum, str(RunInterrupted(signum)))

    def _refuse_errors(self) -> None:
        errors = [p for p in self.plan.problems if p.severity == "error" or p.missing_path]
        if errors:
            error = ConfigError(errors)
            self.status.end("config_error", 2, str(error))
            raise error
        for problem in self.plan.problems:
            self.view.note(str(problem))

    def _run_inside(self, stack: ExitStack) -> RunResult:
        ids = [job.entry.id for job in self.plan.jobs]
        self.status.begin(ids)
        if self.plan.uses_workers or in_ray_job():
            self.view.note("starting Ray")
            ensure_ray()
            stack.enter_context(interruptible(self._mark_interrupted))  # again: Ray installs handlers of its own
        self._prepare_folder()
        journal = Journal(self.folder / "journal.jsonl", self.run_id)
        stack.callback(journal.close)
        watcher = self._start_watcher()
        stack.callback(self._finish, watcher)
        shared = self.trial.cache_dir if self.trial else cache_dir(self.settings.cache_dir)
        if not self.trial:
            tidy_cache(shared)
        memo = DigestMemo(shared / "digests")
        context = ContextInfos(self.folder / "context_infos.json", tuple(p.name for p in self.plan.config.pipelines))
        base = self.trial.folder if self.trial else ""
        runner = JobRunner(
            folder=self.folder,
            resolver=Resolver(self.plan, self.work_dir, self.root, context, memo, base),
            context=context,
            manifest=Manifest(self.folder / "artifacts" / "markers", memo),
            status=self.status,
            journal=journal,
            watcher=watcher,
            view=self.view,
            cache_dir=shared,
            use_cache=self.use_cache,
            shared=SharedResults(shared / "jobs", memo) if self.trial and self.use_cache else None,
        )
        self.view.run_started(self.plan, str(self.folder))
        page = dashboard_page()
        if page is not None:
            self.status.notes.append(f"Ray's dashboard: {page}")
            self.view.note(self.status.notes[-1])
        journal.emit("run_started", jobs=ids, resume=self.resume, **this_driver(page))
        self._watch_configuration(watcher)
        unmet = self._iterate(runner)
        journal.emit("run_done", iterations=context.iteration, unmet=list(unmet))
        if unmet:
            self.status.notes.append(f"targets not met: {'; '.join(unmet)}")
            self.view.note(self.status.notes[-1])
        return RunResult(self.folder, context.to_list(), context.iteration, unmet)

    def _finish(self, watcher: WatcherClient) -> None:
        """Ends the watching; that wandb failed is said and nothing more."""
        text = "waiting for wandb to take the last metrics, for at most half a minute"
        patience = threading.Timer(_SILENT_S, self.view.note, [text])
        patience.start()
        try:
            state = watcher.finish()
        finally:
            patience.cancel()
        if state.error:
            self.status.notes.append(f"wandb ({state.mode}): {state.error}; metrics.jsonl holds every metric")
            self.view.note(self.status.notes[-1])

    def _prepare_folder(self) -> None:
        for name in ("logs", "artifacts", "quarantine"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "metrics.jsonl").touch()
        target, text = self.folder / "config.yaml", to_yaml(redact(self.plan.config.document.data))
        if self.resume and target.exists() and target.read_bytes() != text.encode():
            self.view.note("the configuration has changed since the last run: jobs that the change touches run again")
        atomic_write(target, text)

    def _start_watcher(self) -> WatcherClient:
        config = WatchConfig(
            run_id=self._stable_run_id(),
            project=self.settings.project_name,
            experiment=self.settings.experiment_name,
            work_dir=self.folder,
            wandb=self.settings.watcher.wandb,
        )
        return self.trial.watch(config) if self.trial else start_watcher(config, actor=self.plan.uses_workers)

    def _stable_run_id(self) -> str:
        """The first run's id when this one goes on with it, so that wandb continues one curve."""
        first = next(iter(read_events(self.folder / "journal.jsonl")), None)
        return str(first["run"]) if first else self.run_id

    def _watch_configuration(self, watcher: WatcherClient) -> None:
        watcher.watch_cfgs([(self.plan.config.document.data, "sandbox")])

    def _iterate(self, runner: JobRunner) -> tuple[str, ...]:
        entries = [job.entry for job in self.plan.jobs]
        updates: dict[JobEntry, dict[str, Any]] = {}
        unmet: tuple[str, ...] = ()
        for number in range(1, self.settings.max_iter_num + 1):
            several = self.settings.max_iter_num > 1
            if several:
                self.view.iteration_started(number, self.settings.max_iter_num)
                runner.journal.emit("iteration_started", iteration=number)
            runner.context.begin_iteration()
            runner.resolver.begin_iteration()
            self._run_jobs(runner, f"iter_{number}" if several else "", updates)
            met = {t.text: t.met(runner.context.outputs(t.reference.entry)) for t in self.plan.targets}
            unmet = self._unmet(met)
            if met:
                runner.journal.emit("targets", iteration=number, met=met)
            if met and not unmet:
                break
            if number < self.settings.max_iter_num:
                updates = self._updates(runner, entries)
        return unmet

    def _run_jobs(
        self,
        runner: JobRunner,
        scope: str,
        updates: Mapping[JobEntry, Mapping[str, Any]],
    ) -> None:
        """The jobs of one iteration: those that do not depend on each other at the same time, as far as there is room.

        Where only one can run at a time, it does so in the main thread. So do the jobs of a trial: they work
        in the bundles that it holds.
        """
        graph = self.plan.graph(updates)
        if self.trial or not self.plan.in_parallel(graph):
            for job in self.plan.jobs:
                runner.run(job, scope, updates.get(job.entry, {}))
            return
        cluster = cluster_summary() if self.plan.uses_workers else this_machine()
        turns = [
            JobTurn(runner, job, scope, updates.get(job.entry, {}), demand_of(job.entry, job.hook, cluster))
            for job in self.plan.jobs
        ]
        Schedule(
            turns,
            graph.after,
            Space(lambda: cluster_summary() if is_connected() else cluster).holds,
            self.settings.max_parallel_jobs or MOST_AT_ONCE,
        ).run()

    def _unmet(self, met: Mapping[str, bool]) -> tuple[str, ...]:
        if self.settings.iter_targets_mode == "any" and any(met.values()):
            return ()
        return tuple(text for text, fulfilled in met.items() if not fulfilled)

    def _updates(self, runner: JobRunner, entries: list[JobEntry]) -> dict[JobEntry, dict[str, Any]]:
        updates: dict[JobEntry, dict[str, Any]] = {}
        for source, targets in self.settings.iter_updater.items():
            reference = resolve_reference(source, entries)
            value = reference.value_in(runner.context.outputs(reference.entry))
            for target in [targets] if isinstance(targets, str) else targets:
                entry, key = split_update(target, entries)
                updates.setdefault(entry, {})[key] = value
        return updates
