"""A search: trials driven by Ray Tune, recorded in the journal, from which alone it goes on after a kill."""

from __future__ import annotations

import difflib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raysandbox.config.documents import to_yaml
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, JobFailed, MissingExtraError
from raysandbox.core.events import Journal, read_events
from raysandbox.core.files import atomic_write, cache_dir, link_or_copy
from raysandbox.core.keys import DigestMemo
from raysandbox.core.redact import redact, redact_text, secret_values
from raysandbox.hpo.assign import trial_config
from raysandbox.hpo.bundles import Share, share_of
from raysandbox.hpo.planning import plan_search
from raysandbox.hpo.schedulers import make_scheduler
from raysandbox.hpo.schema import Search
from raysandbox.hpo.searchers import Suggestion, TrialSearcher, make_searcher, tune_searcher
from raysandbox.hpo.trial import OBJECTIVE, OUTCOME, Setting, trainable
from raysandbox.report.search import best_trial
from raysandbox.runtime.session import cluster_summary, ensure_ray, is_local
from raysandbox.runtime.signals import interruptible
from raysandbox.runtime.watcher_actor import WatcherClient, call_actor, start_watcher
from raysandbox.runtime.watcher_hub import Watchers, start_hub
from raysandbox.sandbox.context import read_context_infos
from raysandbox.sandbox.experiment import RunResult, accounted, locate_run
from raysandbox.sandbox.paths import PathMap
from raysandbox.sandbox.plan import ExperimentPlan
from raysandbox.sandbox.shared import SharedResults
from raysandbox.sandbox.state import RunFolder, Status, set_aside
from raysandbox.sandbox.trials import TRIALS_FOLDER, SearchLog, TrialRecord, read_trials
from raysandbox.sandbox.view import RunView
from raysandbox.watcher.watcher import WatchConfig

__all__ = ["run_search"]

logger = logging.getLogger(__name__)

_LOST_TRIES = 2  # of a trial whose node goes; what a job does wrong is not tried again
_WORSE = "stopped early: others were better at that point"
_CLOSE_S = 60.0  # what wandb may spend on the trials' rest at the end
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends a search
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without the metric has failed; the others go on
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
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
        elif (previous := set_aside(self.work_dir)) is not None:
            self.view.note(f"the earlier run in {self.work_dir} was moved to {previous}")
        first = next(iter(read_events(journal_path)), None)
        self.run_id = str(first["run"]) if first else f"{self.search.name}-{self.run_id}"
        with accounted(self.status, self.work_dir, at_end), ExitStack() as stack:
            stack.enter_context(interruptible())
            self.status.begin(f"{TRIALS_FOLDER}/{record.name}" for record in read_trials(journal_path))
            self.view.note("starting Ray")
            _import_tune()
            ensure_ray()
            stack.enter_context(interruptible())  # again: Ray installs handlers of its own
            self._write_search()
            journal = Journal(journal_path, self.run_id)
            stack.callback(journal.close)
            journal.emit("search_started", resume=resume, search=self._identity())
            self._drive(SearchLog(journal, journal_path), stack)
            result = self._result(journal_path)
            journal.emit("search_done")
            self._prune()
            return result

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
        stack.callback(watcher.finish)
        searcher = make_searcher(self.search, list(log.trials.values()))
        share = share_of(self.search, self.plan, cluster_summary())
        recorder = _Recorder(self.search, log, searcher, watcher, self.status, self.view, self.run_id)
        if searcher.finished:
            self.view.note("every trial of the search has ended")
            return
        if share.problem:
            raise JobFailed(share.problem)
        if share.note:
            self.view.note(share.note)
        recorder.hub = hub = start_hub(f"watchers-{self.run_id}")
        stack.callback(self._close_hub, hub)
        left = None if self.search.num_trials is None else self.search.num_trials - len(recorder.ended)
        self.view.search_started(left, share.concurrent, str(self.work_dir))
        try:
            self._tune(self._setting(hub, share), share, recorder)
        finally:
            recorder.flush()
        recorder.end_rest()

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

    def _tune(self, setting: Setting, share: Share, recorder: _Recorder) -> None:
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
                callbacks=[_callback(recorder)],
                failure_config=tune.FailureConfig(max_failures=_LOST_TRIES),
                verbose=0,
            ),
        )
        tuner.fit()

    def _close_hub(self, hub: Any) -> None:
        """Waits until wandb has what the trials reported; that it failed is said and nothing more."""
        import ray

        try:
            errors = call_actor(hub, "close", _CLOSE_S, patience=2 * _CLOSE_S)
        except OSError as error:
            errors = [str(error)]
        ray.kill(hub)
        if errors:
            self.status.notes.append(f"wandb: {len(errors)} trials are not complete there: {redact_text(errors[0])}")
            self.view.note(self.status.notes[-1])

    def _result(self, journal: Path) -> RunResult:
        """Leaves the best trial's configuration.

        Raises:
            JobFailed: no trial has a value.
        """
        trials = read_trials(journal)
        best = best_trial(trials, self.search.metric.goal)
        if best is None:
            reasons = list(dict.fromkeys(record.reason for record in trials if record.reason))
            raise JobFailed(f"none of the {len(trials)} trials has a value: " + "; ".join(reasons[:3]))
        config = trial_config(self.plan.config, self.search, best.params, best.seed)
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
        logging.getLogger(name).setLevel(logging.ERROR)


@dataclass
class _Recorder:
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
            state, reason = ("failed", redact_text(error)) if error else ("stopped", _WORSE)
            record = replace(record, state=state, value=None if error else value, reason=reason)
            with suppress(OSError):
                call_actor(self.hub, "interrupt", f"{self.run_id}-{record.name}")
        else:
            record = replace(record, metrics=told["metrics"], cached=tuple(told["cached"]), reason=told["reason"])
            if told["state"] == "done":
                record = replace(record, state="done", value=told["value"], history=history or (told["value"],))
            else:
                record = replace(record, state="failed", value=None, reason=record.reason or "it was interrupted")
        self.ended.add(number)
        self.log.ended(record)
        self.searcher.ended(number, record.value)
        self._tell(record)

    def end_rest(self) -> None:
        """Trials that run when Tune has finished: the time is over."""
        for record in list(self.log.trials.values()):
            if record.state == "running" and record.number in self._began:
                history = tuple(self._histories.get(record.number, ()))
                seconds = time.monotonic() - self._began[record.number]
                value = history[-1] if history else None
                reason = "the search ended: its time is over"
                ended = replace(record, state="stopped", value=value, history=history, seconds=seconds, reason=reason)
                self.log.ended(ended)
                self._tell(ended)

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


def _callback(recorder: _Recorder) -> Any:
    """The recorder as a callback of Tune."""
    from ray import tune

    class Recording(tune.Callback):
        def __reduce__(self) -> Any:
            return tune.Callback, ()  # for Tune's own state, from which nothing is ever read

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if OBJECTIVE in result and OUTCOME not in result:
                recorder.reading(trial.config["number"], result["training_iteration"], result[OBJECTIVE])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            recorder.end(trial.config, trial.last_result or {})

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            text = str(trial.get_error() or "its process died").strip().splitlines()[-1]
            recorder.end(trial.config, {}, f"its process died {_LOST_TRIES + 1} times: {text}")

    return Recording()
