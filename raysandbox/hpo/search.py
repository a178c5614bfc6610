"""A search: trials driven by Ray Tune, recorded in the journal, from which alone it goes on after a kill."""

from __future__ import annotations

import difflib
import json
import logging
import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.config.documents import to_yaml
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, JobFailed, MissingExtraError, RunInterrupted
from raysandbox.core.events import Journal, read_events
from raysandbox.core.files import atomic_write, cache_dir, link_or_copy
from raysandbox.core.keys import DigestMemo, digest
from raysandbox.core.names import is_remote
from raysandbox.core.redact import redact, redact_text, secret_values
from raysandbox.hpo.bundles import Share, patience, share_of
from raysandbox.hpo.planning import plan_search
from raysandbox.hpo.recorder import Recorder, callback
from raysandbox.hpo.room import Room
from raysandbox.hpo.schedulers import make_scheduler
from raysandbox.hpo.schema import Search
from raysandbox.hpo.searchers import make_searcher, tune_searcher
from raysandbox.hpo.trial import Setting, trainable
from raysandbox.report.search import best_trial
from raysandbox.runtime.actors import LOST_TRIES
from raysandbox.runtime.session import cluster_summary, ensure_ray, is_local
from raysandbox.runtime.signals import interruptible
from raysandbox.runtime.watcher_actor import WatcherClient, call_actor, start_watcher
from raysandbox.runtime.watcher_hub import Watchers, start_hub
from raysandbox.sandbox.context import read_context_infos
from raysandbox.sandbox.drafts import same_path
from raysandbox.sandbox.experiment import RunResult, accounted, locate_run
from raysandbox.sandbox.manifest import Manifest
from raysandbox.sandbox.paths import PathMap, is_inside, standing
from raysandbox.sandbox.plan import ExperimentPlan
from raysandbox.sandbox.shared import SharedResults
from raysandbox.sandbox.state import RunFolder, Status, set_aside
from raysandbox.sandbox.trials import TRIALS_FOLDER, SearchLog, read_trials
from raysandbox.sandbox.view import RunView
from raysandbox.watcher.watcher import WatchConfig

__all__ = ["run_search"]

logger = logging.getLogger(__name__)

_CLOSE_S = 60.0  # what wandb may spend on the trials' rest at the end
_HURRY_S = 1.0  # the same after a signal
_NOT_OF_TRIALS = ("hpo_config", "resume", "watcher", "cache_dir", "project_name", "experiment_name")
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends a search
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without the metric has failed; the others go on
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_GLOBAL_CHECKPOINT_S": "300",  # its state grows with the trials, and nothing reads it
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_search(
    config: SandboxConfig,
    *,
    resume: bool = False,
    use_cache: bool = True,
    view: RunView | None = None,
    at_end: Callable[[Path], object] = lambda work_dir: None,
) -> RunResult:
    """Runs a search to its end.

    Args:
        config: the experiment, with `hpo_config`.
        resume: go on with the search in work_dir: ended trials stay, others are finished.
        use_cache: whether trials share what they compute.
        view: shows progress.
        at_end: called with the work_dir when trials have run, however the search ended.

    Returns:
        the best trial's context infos, in the search's work_dir.

    Raises:
        ConfigError: nothing was started.
        WorkDirBusyError: another run holds the work_dir.
        JobFailed: no trial has a value.
        RunInterrupted: a signal ended it; it can be resumed.
    """
    work_dir, root = locate_run(config)
    work_dir = work_dir.absolute()
    plan, search = plan_search(config, PathMap(work_dir, root))
    with RunFolder(work_dir):
        status = Status(work_dir / "status.json")
        errors = [p for p in plan.problems if p.severity == "error" or p.missing_path]
        if errors or search is None:
            error = ConfigError(errors)
            status.end("config_error", 2, str(error))
            raise error
        shown = view or RunView()
        for problem in plan.problems:
            shown.note(str(problem))
        if root is not None:
            shown.note(f"outputs go below {root} (the cluster's copy of the working directory is temporary)")
        run = _SearchRun(plan, search, work_dir, root, shown, status, use_cache)
        return run.run(resume or config.settings.resume, at_end)


@dataclass
class _SearchRun:
    plan: ExperimentPlan
    search: Search
    work_dir: Path
    root: Path | None
    view: RunView
    status: Status
    use_cache: bool
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def run(self, resume: bool, at_end: Callable[[Path], object]) -> RunResult:
        journal_path = self.work_dir / "journal.jsonl"
        if resume:
            self._refuse_other(journal_path)
        if not (resume and self._goes_on(journal_path)) and (previous := set_aside(self.work_dir)) is not None:
            self.view.note(f"the earlier run in {self.work_dir} was moved to {previous}")
        first = next(iter(read_events(journal_path)), None)
        self.run_id = str(first["run"]) if first else f"{self.search.name}-{self.run_id}"
        with accounted(self.status, self.work_dir, at_end), ExitStack() as stack:
            stack.enter_context(interruptible(self._mark_interrupted))
            self.status.begin(f"{TRIALS_FOLDER}/{record.name}" for record in read_trials(journal_path))
            self.view.note("starting Ray")
            _import_tune()
            ensure_ray()
            stack.enter_context(interruptible(self._mark_interrupted))  # again: Ray installs handlers of its own
            self._write_search()
            journal = Journal(journal_path, self.run_id)
            stack.callback(journal.close)
            journal.emit("search_started", resume=resume, search=self._identity(), experiment=self._experiment())
            try:
                self._drive(SearchLog(journal, journal_path), stack)
            finally:
                best = self._leave_best(journal_path)
            journal.emit("search_done")
            self._prune()
            if best is None:
                raise self._no_value(journal_path)
            self._note_changed(journal_path)
            return best

    def _mark_interrupted(self, signum: int) -> None:
        """Says so at once: ending the trials may take longer than what ends the run gives it."""
        self.status.end("interrupted", 128 + signum, str(RunInterrupted(signum)))

    def _prune(self) -> None:
        """Keeps what trials share within its limit."""
        folder = cache_dir(self.plan.config.settings.cache_dir)
        SharedResults(folder / "jobs", DigestMemo(folder / "digests")).prune()

    def _identity(self) -> dict[str, Any]:
        """What trials must have in common to be one search."""
        search = self.search
        return json.loads(
            json.dumps(
                redact(
                    {
                        "method": search.method,
                        "metric": {"name": search.metric.name, "goal": search.metric.goal},
                        "parameters": search.space.to_json(),
                        "search_alg": search.search_alg,
                        "points_to_evaluate": list(search.points_to_evaluate),
                        "seeds": list(search.seeds),
                        "seed": search.seed,
                    }
                ),
                default=str,
            )
        )

    def _refuse_other(self, journal: Path) -> None:
        """Refuses to go on with trials of another search.

        Raises:
            ConfigError: what differs, line by line.
        """
        started = [event for event in read_events(journal) if event["event"] == "search_started"]
        if not started or started[-1]["search"] == self._identity():
            return
        before, now = (to_yaml(each).splitlines() for each in (started[-1]["search"], self._identity()))
        found = difflib.unified_diff(before, now, lineterm="", n=0)
        lines = [line for line in found if not line.startswith(("---", "+++", "@@"))]
        message = "is not the search whose trials stand in work_dir:\n  " + "\n  ".join(lines) + "\n"
        fix = "restore it, or run without --resume: trials take from the cache what did not change"
        error = ConfigError([self.plan.config.document.problem(("hpo_config",), message, fix)])
        self.status.end("config_error", 2, str(error))
        raise error

    def _experiment(self) -> str:
        """Digest of what trials run besides their parameters: the configuration, its side files and inputs."""
        memo = DigestMemo(cache_dir(self.plan.config.settings.cache_dir) / "digests")
        paths = PathMap(self.work_dir, self.root)
        found: dict[str, Any] = {}
        for job in self.plan.jobs:
            sides = [path for path in (job.entry.config.dj_configs, job.entry.config.extra_configs) if path]
            for path in (*sides, *job.paths.reads, *job.paths.models):
                if isinstance(path, str) and not is_remote(path) and not is_inside(same_path(path), str(self.work_dir)):
                    found[path] = [memo.of(Path(match)) for match in standing(paths.locate(path))]
        data = {key: value for key, value in self.plan.config.document.data.items() if key not in _NOT_OF_TRIALS}
        return digest([data, sorted(found.items())])

    def _goes_on(self, journal: Path) -> bool:
        """Whether trials that stand in work_dir ran what would run now; it is said when they did not."""
        started = [event for event in read_events(journal) if event["event"] == "search_started"]
        if not started or started[-1].get("experiment") in (None, self._experiment()):
            return True
        self.view.note(
            "the configuration, a side file or the data have changed since: every trial runs again; "
            "jobs that the change does not touch are taken from the cache"
        )
        return False

    def _write_search(self) -> None:
        """Leaves the configuration and what the report needs to know of the search."""
        for name in ("artifacts/search", "logs", TRIALS_FOLDER):
            (self.work_dir / name).mkdir(parents=True, exist_ok=True)
        (self.work_dir / "metrics.jsonl").touch()
        atomic_write(self.work_dir / "config.yaml", to_yaml(redact(self.plan.config.document.data)))
        search = self.search
        content = {
            "name": search.name,
            "method": search.method,
            "metric": {"name": search.metric.name, "goal": search.metric.goal, "target": search.metric.target},
            "parameters": search.space.to_json(),
            "num_trials": search.num_trials,
            "seeds": list(search.seeds),
        }
        atomic_write(self.work_dir / "artifacts/search/search.json", json.dumps(redact(content), indent=2, default=str))

    def _drive(self, log: SearchLog, stack: ExitStack) -> None:
        """Runs what is left of the trials."""
        watcher = self._start_watcher()
        stack.callback(self._close_watcher, watcher)
        searcher = make_searcher(self.search, list(log.trials.values()))
        share = share_of(self.search, self.plan, cluster_summary())
        recorder = Recorder(self.search, log, searcher, watcher, self.status, self.view, self.run_id)
        if searcher.finished:
            self.view.note("every trial of the search has ended")
            return
        if share.problem:
            raise JobFailed(share.problem)
        if share.note:
            self.view.note(share.note)
        recorder.hub = hub = start_hub(f"watchers-{self.run_id}")
        stack.push(lambda kind, *_: self._close_hub(hub, _HURRY_S if kind is KeyboardInterrupt else _CLOSE_S))
        left = None if self.search.num_trials is None else self.search.num_trials - len(recorder.ended)
        self.view.search_started(left, share.concurrent, str(self.work_dir))
        try:
            self._tune(self._setting(hub, share), share, recorder)
        finally:
            recorder.flush()
        if recorder.unfinished:
            self._note(f"the time is over: {recorder.unfinished} trials have not ended (--resume goes on with them)")

    def _start_watcher(self) -> WatcherClient:
        settings = self.plan.config.settings
        config = WatchConfig(
            run_id=self.run_id,
            project=settings.project_name,
            experiment=self.search.name,
            work_dir=self.work_dir,
            wandb=settings.watcher.wandb,
        )
        watcher = start_watcher(config, actor=False)
        watcher.watch_cfgs([(self.plan.config.document.data, "sandbox"), (self.search.raw, "hpo_config")])
        return watcher

    def _setting(self, hub: Any, share: Share) -> Setting:
        import ray

        return Setting(
            config=self.plan.config,
            search=self.search,
            work_dir=self.work_dir,
            root=self.root,
            cache_dir=cache_dir(self.plan.config.settings.cache_dir).absolute(),
            run_id=self.run_id,
            hub=hub,
            watchers=Watchers(hub, redact(self.search.raw), self.search.objective.watched),
            node=ray.get_runtime_context().get_node_id(),
            folder=Path.cwd(),
            local=is_local(),
            reserved=bool(share.bundles),
            use_cache=self.use_cache,
            secrets=frozenset(secret_values()),
        )

    def _tune(self, setting: Setting, share: Share, recorder: Recorder) -> None:
        import ray.util
        from ray import tune

        # An empty head bundle is none; without any bundle a trial stays on this node by its resource.
        here = {f"node:{ray.util.get_node_ip_address()}": 0.0001}
        bundles = [{}, *map(dict, share.bundles)] if share.bundles else [here]
        resources = tune.PlacementGroupFactory(bundles, strategy=share.strategy)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable(), setting=setting), resources),
            tune_config=tune.TuneConfig(
                search_alg=tune_searcher(recorder.searcher, recorder.suggested),
                scheduler=make_scheduler(self.search),
                num_samples=-1,
                max_concurrent_trials=share.concurrent,
                time_budget_s=self.search.time_budget_s,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(self.work_dir / "artifacts"),
                callbacks=[callback(recorder, Room(share, patience(self.plan), self.view.note))],
                failure_config=tune.FailureConfig(max_failures=LOST_TRIES),
                verbose=0,
            ),
        )
        tuner.fit()

    def _close_hub(self, hub: Any, patience: float) -> None:
        """Waits until wandb has what the trials reported; that it failed is said and nothing more."""
        import ray

        try:
            errors = call_actor(hub, "close", patience, patience=2 * patience)
        except OSError as error:
            errors = [str(error)]
        ray.kill(hub)
        if errors:
            self._note(f"wandb: {len(errors)} trials are not complete there: {redact_text(errors[0])}")

    def _close_watcher(self, watcher: WatcherClient) -> None:
        state = watcher.finish()
        if state.error:
            self._note(f"wandb ({state.mode}): {state.error}; metrics.jsonl holds every metric")

    def _note(self, text: str) -> None:
        self.status.notes.append(text)
        self.view.note(text)

    def _leave_best(self, journal: Path) -> RunResult | None:
        """Leaves the best trial's configuration; None when no trial has a value."""
        best = best_trial(read_trials(journal), self.search.metric.goal)
        if best is None:
            return None
        config = self.search.trial_config(self.plan.config, best.params, best.seed)
        settings = config.settings
        data = {
            **config.document.data,
            "experiment_name": f"{settings.experiment_name}-best",
            "work_dir": str(settings.work_path / "best"),
        }
        head = f"# trial {best.name}: {self.search.metric.name} = {best.value}\n"
        atomic_write(self.work_dir / "best_config.yaml", head + to_yaml(redact(data)))
        infos = self.work_dir / TRIALS_FOLDER / best.name / "context_infos.json"
        if infos.exists():
            link_or_copy(infos, self.work_dir / "context_infos.json")
        return RunResult(self.work_dir, read_context_infos(infos), settings.max_iter_num, ())

    def _note_changed(self, journal: Path) -> None:
        """Says what the best trial made and is not as it was: its value was measured before, and stands."""
        best = best_trial(read_trials(journal), self.search.metric.goal)
        if best is None:
            return
        markers = self.work_dir / TRIALS_FOLDER / best.name / "artifacts/markers"
        memo = DigestMemo(cache_dir(self.plan.config.settings.cache_dir) / "digests")
        changed = Manifest(markers, memo).changed()
        if changed:
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            self._note(
                f"the best trial, {best.name}, was measured with files that have changed since: {changed[0]}{more}; "
                "`raysandbox run best_config.yaml` makes them again"
            )

    def _no_value(self, journal: Path) -> JobFailed:
        trials = read_trials(journal)
        reasons = list(dict.fromkeys(record.reason.splitlines()[0] for record in trials if record.reason))
        return JobFailed(f"none of the {len(trials)} trials has a value: " + "; ".join(reasons[:3]))


def _import_tune() -> None:
    """Prepares Tune before it is imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.update(_TUNE_ENVIRONMENT)
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ray[tune]", "hpo", "hpo_config") from error
    for name in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is told by the trial
