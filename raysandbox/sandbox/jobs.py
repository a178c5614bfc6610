"""Running one job: put its configuration together, look it up by content, run it, mark it done."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raysandbox.config.schema import JobEntry
from raysandbox.config.validation import model_problems
from raysandbox.core.errors import JobFailed, JobTimeout, UserError
from raysandbox.core.events import Journal
from raysandbox.core.files import link_or_copy, remove
from raysandbox.core.keys import DigestMemo, code_version, digest
from raysandbox.core.redact import redact_text
from raysandbox.hooks.base import Hook, Job, JobContext, JobPaths
from raysandbox.ops.base import OPERATORS
from raysandbox.recipe.schema import recipe_problems
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.signals import deadline
from raysandbox.runtime.watcher_actor import WatcherClient
from raysandbox.sandbox.context import ContextInfos, plain
from raysandbox.sandbox.drafts import put_together, same_path
from raysandbox.sandbox.manifest import Manifest, Marker
from raysandbox.sandbox.paths import PathMap
from raysandbox.sandbox.plan import ExperimentPlan, PlannedJob
from raysandbox.sandbox.references import ITEM, resolve_reference
from raysandbox.sandbox.state import Status
from raysandbox.sandbox.view import RunView

__all__ = ["JobRunner"]

logger = logging.getLogger(__name__)
_NO_ITEM = object()


@dataclass(frozen=True)
class _Ready:
    """A job whose configuration and key are known."""

    planned: PlannedJob
    job: Job
    paths: JobPaths
    slug: str
    scope: str
    key: str

    @property
    def folder(self) -> str:
        """Where its own files stand below `artifacts/`, `logs/` and `quarantine/`."""
        return os.path.join(self.scope, self.slug)


@dataclass
class JobRunner:
    """Runs the jobs of one experiment, one after the other.

    Attributes:
        plan: what runs.
        work_dir: the run's folder.
        root: where relative outputs start, None for the current directory.
        context: outputs so far.
        manifest: markers of finished jobs.
        status: `status.json`.
        journal: `journal.jsonl`.
        watcher: receives metrics.
        view: shows progress.
        cache_dir: what runs share.
        use_cache: whether caches may be read.
    """

    plan: ExperimentPlan
    work_dir: Path
    root: Path | None
    context: ContextInfos
    manifest: Manifest
    memo: DigestMemo
    status: Status
    journal: Journal
    watcher: WatcherClient
    view: RunView
    cache_dir: Path
    use_cache: bool
    _written: dict[str, str] = field(default_factory=dict)
    _probes: dict[tuple[str, str | None], Path] = field(default_factory=dict)

    def begin_iteration(self) -> None:
        """Forgets what the jobs of the iteration before wrote."""
        self.context.begin_iteration()
        self._written.clear()
        self._probes.clear()

    def run(self, planned: PlannedJob, scope: str, updates: Mapping[str, Any]) -> None:
        """Runs a job, or takes it from its marker.

        Args:
            planned: the job.
            scope: folder below work_dir of this iteration, "" for none.
            updates: values of `iter_updater` for its configuration.

        Raises:
            JobFailed: it ended without its outputs.
        """
        entry = planned.entry
        self.view.job_started(entry)
        start = time.monotonic()
        try:
            if entry.config.foreach is None:
                outputs, state = self._run_unit(planned, scope, updates, _NO_ITEM, entry.slug)
            else:
                outputs, state = self._run_each(planned, scope, updates)
        except UserError as error:
            self._failed(entry, error, time.monotonic() - start)
            raise
        self.context.record(entry, outputs)
        self.status.job(entry.id, state)
        self.view.job_ended(entry, state, time.monotonic() - start)

    def _failed(self, entry: JobEntry, error: UserError, seconds: float) -> None:
        self.status.job(entry.id, "failed")
        self.journal.emit("job_failed", job=entry.id, error=str(error), seconds=round(seconds, 3))
        self.view.job_ended(entry, "failed", seconds)

    def _run_each(self, planned: PlannedJob, scope: str, updates: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        entry = planned.entry
        items = self._value(entry, str(entry.config.foreach))
        if not isinstance(items, list):
            raise JobFailed(f"job {entry.id}: foreach needs a list; '{entry.config.foreach}' is {items!r}")
        collected: dict[str, Any] = {name: [] for name in entry.config.output}
        states = set()
        for index, item in enumerate(items):
            slug = f"{entry.slug}.{index}"
            outputs, state = self._run_unit(planned, os.path.join(scope, slug), updates, item, slug)
            states.add(state)
            for name in entry.config.output:
                collected[name].append(outputs[name])
        return collected, "cached" if states == {"cached"} else "done"

    def _run_unit(
        self, planned: PlannedJob, scope: str, updates: Mapping[str, Any], item: Any, slug: str
    ) -> tuple[dict[str, Any], Any]:
        ready = self._prepare(planned, scope, updates, item, slug)
        marker = self.manifest.find(ready.key)
        state = "done"
        if marker is not None:
            marker, state = self._reuse(ready, marker), "cached"
        else:
            marker = self._execute(ready)
        if planned.hook.is_probe:
            self._probes[planned.entry.pipeline, planned.entry.config.meta_name] = Path(marker.artifacts)
        return dict(marker.outputs), state

    # Configuration and key

    def _value(self, entry: JobEntry, text: str, item: Any = _NO_ITEM) -> Any:
        if text == ITEM and item is not _NO_ITEM:
            return item
        reference = resolve_reference(text, [job.entry for job in self.plan.jobs], entry)
        return reference.value_in(self.context.outputs(reference.entry))

    def _prepare(self, planned: PlannedJob, scope: str, updates: Mapping[str, Any], item: Any, slug: str) -> _Ready:
        entry, hook = planned.entry, planned.hook
        before = PathMap(self.work_dir, self.root, self._written)
        drafts = put_together(
            entry,
            self.plan.config.document,
            lambda text: self._value(entry, text, item),
            open_side=lambda path: Path(before.locate(path)).expanduser(),
            updates=updates,
        )
        recipe = drafts.recipe.data if drafts.recipe and hook.takes_recipe else None
        extra = drafts.extra.data if drafts.extra else {}
        problems = list(drafts.problems)
        if not problems:
            problems = _problems(hook, recipe, extra, drafts)
        if problems:
            raise JobFailed(f"job {entry.id}: " + "\n".join(str(problem) for problem in problems))
        raw_paths = hook.paths(recipe, extra)
        sides = [p for p in (entry.config.dj_configs, entry.config.extra_configs) if isinstance(p, str)]
        read_before = {same_path(before.locate(path)) for path in (*raw_paths.reads, *raw_paths.models, *sides)}
        self._written |= {same_path(path): scope for path in raw_paths.writes}
        paths = PathMap(self.work_dir, self.root, self._written)
        inputs = {*raw_paths.reads, *raw_paths.models}
        job = Job(
            entry.id,
            entry.config.meta_name or entry.config.hook,
            None if recipe is None else paths.apply(recipe, inputs),
            paths.apply(extra, inputs),
            Resources.model_validate(entry.config.resources),
            entry.config.runtime_env,
        )
        key = digest(
            {
                "code": code_version(hook, *_component_classes(hook, recipe, extra)),
                "hook": hook.type_name,
                "output": entry.config.output,
                "recipe": paths.unscoped(recipe),
                "extra": paths.unscoped(extra),
                "runtime_env": dict(entry.config.runtime_env),
                "reads": self._input_digests(paths, read_before),
                "probe": self._probe_digest(planned),
            }
        )
        return _Ready(planned, job, hook.paths(job.recipe, job.extra), slug, scope, key)

    def _input_digests(self, paths: PathMap, files: set[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(files):
            matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else [path]
            found[paths.unscoped(path)] = [self.memo.of(Path(match)) for match in matches]
        return found

    def _probe(self, planned: PlannedJob) -> Path | None:
        return self._probes.get((planned.entry.pipeline, planned.entry.config.meta_name))

    def _probe_digest(self, planned: PlannedJob) -> str | None:
        folder = self._probe(planned) if planned.hook.needs_probe else None
        return None if folder is None else self.memo.of(folder / "analysis.json")

    # Running and reusing

    def _reuse(self, ready: _Ready, marker: Marker) -> Marker:
        """Takes a finished job; outputs of another iteration are linked to where this one's belong."""
        outputs = dict(marker.outputs)
        for old, new in zip(marker.writes, ready.paths.writes, strict=True):
            if old != new:
                link_or_copy(Path(old), Path(new))
                outputs = _rebase(outputs, old, new)
        self.journal.emit("job_cached", job=ready.job.id, key=ready.key, scope=ready.scope)
        return replace(marker, outputs=outputs)

    def _execute(self, ready: _Ready) -> Marker:
        entry, hook = ready.planned.entry, ready.planned.hook
        log = self.work_dir / "logs" / f"{ready.folder}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        artifacts = self.work_dir / "artifacts" / ready.folder
        context = JobContext(
            artifacts=artifacts,
            quarantine=self.work_dir / "quarantine" / ready.folder,
            log=log,
            watcher=self.watcher,
            report=self.watcher.scoped(ready.job.name),
            progress=self.view,
            probe=self._probe(ready.planned),
            cache_dir=self.cache_dir,
            use_cache=self.use_cache,
        )
        start = time.monotonic()
        with _job_log(log):
            values = self._attempts(ready, hook(), context)
        outputs = _name_outputs(entry, values)
        missing = [path for path in ready.paths.writes if not Path(path).expanduser().exists()]
        if missing:
            raise JobFailed(f"job {entry.id} ended without writing {', '.join(missing)}")
        digests = self.manifest.digests([*ready.paths.writes, str(artifacts)])
        seconds = round(time.monotonic() - start, 3)
        marker = Marker(ready.key, entry.id, outputs, list(ready.paths.writes), str(artifacts), digests, seconds)
        for name, value in outputs.items():
            self.watcher.watch(value, f"{ready.job.name}.{name}")
        self.watcher.flush()
        self.manifest.write(marker)
        self.journal.emit("job_done", job=entry.id, key=ready.key, scope=ready.scope, seconds=seconds)
        return marker

    def _attempts(self, ready: _Ready, hook: Hook, context: JobContext) -> list[Any]:
        entry = ready.planned.entry
        for attempt in range(entry.config.retries + 1):
            self.journal.emit("job_started", job=entry.id, key=ready.key, scope=ready.scope, attempt=attempt)
            remove(context.artifacts)
            context.artifacts.mkdir(parents=True)
            try:
                with deadline(entry.config.timeout_s):
                    return list(hook.run(ready.job, context))
            except JobTimeout as error:
                failure: JobFailed = JobTimeout(
                    f"job {entry.id} ran past its timeout_s of {entry.config.timeout_s:g} s"
                )
                failure.__cause__ = error
            except UserError as error:
                failure = JobFailed(f"job {entry.id} failed: {error}")
                failure.__cause__ = error
            except Exception as error:
                logger.exception("job %s failed", entry.id)
                failure = JobFailed(
                    redact_text(f"job {entry.id} failed: {type(error).__name__}: {error} (traceback in {context.log})")
                )
                failure.__cause__ = error
            if attempt < entry.config.retries:
                self.journal.emit("job_retried", job=entry.id, error=str(failure), attempt=attempt)
                self.view.note(f"{failure}; trying again")
        raise failure


def _problems(hook: type[Hook], recipe: Any, extra: dict[str, Any], drafts: Any) -> list[Any]:
    problems = []
    if recipe is not None:
        problems += [
            drafts.recipe.problem(p.path, p.message, p.fix) for p in recipe_problems(recipe) if p.severity == "error"
        ]
    raw = {k: v for k, v in extra.items() if k != "type" or hook.components is None}
    locate = drafts.extra.problem if drafts.extra else drafts.recipe.problem if drafts.recipe else None
    return problems + model_problems(hook.model(extra), raw, locate) if locate else problems


def _component_classes(hook: type[Hook], recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> Iterator[type]:
    yield hook.model(extra)
    for step in (recipe or {}).get("process") or []:
        yield OPERATORS.get(step if isinstance(step, str) else next(iter(step)))


def _rebase(value: Any, old: str, new: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _rebase(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_rebase(item, old, new) for item in value]
    return new + value[len(old) :] if isinstance(value, str) and (value + "/").startswith(old + "/") else value


def _name_outputs(entry: JobEntry, values: list[Any]) -> dict[str, Any]:
    names = entry.config.output
    if len(names) > len(values):
        raise JobFailed(
            f"job {entry.id} returned {len(values)} values; `output` names {len(names)}: {', '.join(names)}"
        )
    unpacked = [value[0] if isinstance(value, list | tuple) and len(value) == 1 else value for value in values]
    return {name: plain(value, entry.id) for name, value in zip(names, unpacked, strict=False)}


@contextlib.contextmanager
def _job_log(path: Path) -> Iterator[None]:
    """Sends the log records of this process to the job's log file while the job runs."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
