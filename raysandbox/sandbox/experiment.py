"""One experiment: iterations of all pipelines, targets, resume, and how it ends."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysandbox.config.documents import to_yaml
from raysandbox.config.schema import JobEntry, SandboxConfig
from raysandbox.core.errors import ConfigError, RunInterrupted, SandboxError, WorkDirBusyError
from raysandbox.core.events import Journal, read_events
from raysandbox.core.files import atomic_write, cache_dir
from raysandbox.core.keys import DigestMemo
from raysandbox.core.redact import redact
from raysandbox.runtime.session import ensure_ray, in_ray_job
from raysandbox.runtime.signals import interruptible
from raysandbox.runtime.watcher_actor import WatcherClient, start_watcher
from raysandbox.sandbox.context import ContextInfos
from raysandbox.sandbox.jobs import JobRunner
from raysandbox.sandbox.manifest import Manifest
from raysandbox.sandbox.paths import PathMap, output_root
from raysandbox.sandbox.plan import ExperimentPlan, make_plan, split_update
from raysandbox.sandbox.references import resolve_reference
from raysandbox.sandbox.resolve import Resolver
from raysandbox.sandbox.state import RunFolder, Status, set_aside
from raysandbox.sandbox.view import RunView
from raysandbox.watcher.watcher import WatchConfig

__all__ = ["RunResult", "locate_run", "note_refusal", "run_experiment"]


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


def run_experiment(
    config: SandboxConfig,
    *,
    resume: bool = False,
    use_cache: bool = True,
    view: RunView | None = None,
    at_end: Callable[[Path], object] = lambda work_dir: None,
) -> RunResult:
    """Runs an experiment to its end.

    Args:
        config: what to run.
        resume: go on with the run in work_dir: finished jobs whose keys stand are not run again.
        use_cache: whether caches that runs share may be read.
        view: shows progress.
        at_end: called with the work_dir when jobs have run, however the run ended.

    Raises:
        ConfigError: nothing was started.
        WorkDirBusyError: another run holds the work_dir.
        JobFailed: a job failed.
        RunInterrupted: a signal ended it; it can be resumed.
    """
    work_dir, root = locate_run(config)
    plan = make_plan(config, PathMap(work_dir, root))
    resume = resume or config.settings.resume
    experiment = _Experiment(plan, work_dir, root, view or RunView(), resume, use_cache, at_end)
    with RunFolder(work_dir):
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
    ) -> None:
        self.plan = plan
        self.settings = plan.config.settings
        self.work_dir = work_dir
        self.root = root
        self.view = view
        self.resume = resume
        self.use_cache = use_cache
        self.at_end = at_end
        self.run_id = f"{self.settings.experiment_name}-{uuid.uuid4().hex[:8]}"

    def run(self) -> RunResult:
        self.status = Status(self.work_dir / "status.json")
        self._refuse_errors()
        previous = None if self.resume else set_aside(self.work_dir)
        if previous is not None:
            self.view.note(f"the earlier run in {self.work_dir} was moved to {previous}")
        if self.root is not None:
            self.view.note(f"outputs go below {self.root} (the cluster's copy of the working directory is temporary)")
        try:
            with ExitStack() as stack:
                stack.enter_context(interruptible())
                result = self._run_inside(stack)
            self.status.end("done", 0)
            self.at_end(self.work_dir)
            return result
        except RunInterrupted as error:
            self.status.end("interrupted", 128 + error.signum, str(error))
            raise
        except SandboxError as error:
            self.status.end("failed", 1, str(error))
            self.at_end(self.work_dir)
            raise
        except BaseException as error:  # a defect: said in status.json, and told as it is
            self.status.end("failed", 1, f"{type(error).__name__}: {error}")
            raise

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
            stack.enter_context(interruptible())  # again: Ray installs handlers of its own
        self._prepare_folder()
        journal = Journal(self.work_dir / "journal.jsonl", self.run_id)
        stack.callback(journal.close)
        watcher = start_watcher(self._watch_config(), actor=self.plan.uses_workers)
        stack.callback(self._finish, watcher)
        memo = DigestMemo(cache_dir(self.settings.cache_dir) / "digests")
        context = ContextInfos(self.work_dir / "context_infos.json", tuple(p.name for p in self.plan.config.pipelines))
        runner = JobRunner(
            work_dir=self.work_dir,
            resolver=Resolver(self.plan, self.work_dir, self.root, context, memo),
            context=context,
            manifest=Manifest(self.work_dir / "artifacts" / "markers", memo),
            status=self.status,
            journal=journal,
            watcher=watcher,
            view=self.view,
            cache_dir=cache_dir(self.settings.cache_dir),
            use_cache=self.use_cache,
        )
        self.view.run_started(self.plan, str(self.work_dir))
        journal.emit("run_started", jobs=ids, resume=self.resume)
        self._watch_configuration(watcher)
        unmet = self._iterate(runner)
        journal.emit("run_done", iterations=context.iteration, unmet=list(unmet))
        if unmet:
            self.status.notes.append(f"targets not met: {'; '.join(unmet)}")
            self.view.note(self.status.notes[-1])
        return RunResult(self.work_dir, context.to_list(), context.iteration, unmet)

    def _finish(self, watcher: WatcherClient) -> None:
        """Ends the watching; that wandb failed is said and nothing more."""
        state = watcher.finish()
        if state.error:
            self.status.notes.append(f"wandb ({state.mode}): {state.error}; metrics.jsonl holds every metric")
            self.view.note(self.status.notes[-1])

    def _prepare_folder(self) -> None:
        for name in ("logs", "artifacts", "quarantine"):
            (self.work_dir / name).mkdir(parents=True, exist_ok=True)
        (self.work_dir / "metrics.jsonl").touch()
        target, text = self.work_dir / "config.yaml", to_yaml(redact(self.plan.config.document.data))
        if self.resume and target.exists() and target.read_text(encoding="utf-8") != text:
            self.view.note("the configuration has changed since the last run: jobs that the change touches run again")
        atomic_write(target, text)

    def _watch_config(self) -> WatchConfig:
        return WatchConfig(
            run_id=self._stable_run_id(),
            project=self.settings.project_name,
            experiment=self.settings.experiment_name,
            work_dir=self.work_dir,
            wandb=self.settings.watcher.wandb,
        )

    def _stable_run_id(self) -> str:
        """The first run's id when this one goes on with it, so that wandb continues one curve."""
        first = next(iter(read_events(self.work_dir / "journal.jsonl")), None)
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
            for job in self.plan.jobs:
                runner.run(job, f"iter_{number}" if several else "", updates.get(job.entry, {}))
            met = {t.text: t.met(runner.context.outputs(t.reference.entry)) for t in self.plan.targets}
            unmet = self._unmet(met)
            if met:
                runner.journal.emit("targets", iteration=number, met=met)
            if met and not unmet:
                break
            if number < self.settings.max_iter_num:
                updates = self._updates(runner, entries)
        return unmet

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
