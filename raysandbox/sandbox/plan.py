"""What will run: the jobs in order, what each reads and writes, and everything wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from raysandbox.config.documents import KeyPath, place_of
from raysandbox.config.schema import JobEntry, SandboxConfig
from raysandbox.config.user_code import code_in_environment, code_in_options
from raysandbox.config.validation import model_problems, split
from raysandbox.core.component import Component, FetchedLater
from raysandbox.core.errors import Problem, UnknownNameError, UserError
from raysandbox.core.names import is_remote
from raysandbox.hooks.base import HOOKS, Hook, JobPaths
from raysandbox.recipe.problems import recipe_problems
from raysandbox.runtime.placement import Resources
from raysandbox.sandbox.drafts import UNKNOWN, Draft, Drafts, put_together, same_path, spellings, strings
from raysandbox.sandbox.extras import extras_of_job
from raysandbox.sandbox.graph import Footprint, JobGraph, footprint, job_graph
from raysandbox.sandbox.paths import PathMap, first_around, is_inside, standing
from raysandbox.sandbox.references import ITEM, Target, resolve_reference
from raysandbox.sandbox.state import own_files

__all__ = ["ExperimentPlan", "PlannedJob", "make_plan", "split_update", "user_code_problems"]


@dataclass(frozen=True)
class PlannedJob:
    """A job as it is known before anything ran.

    Attributes:
        entry: the job.
        hook: its hook.
        paths: what it reads and writes.
        needs: earlier jobs whose outputs it reads.
        footprint: the paths that it names and writes.
        extras: extras of this package that it needs where it works.
    """

    entry: JobEntry
    hook: type[Hook]
    paths: JobPaths
    needs: tuple[JobEntry, ...]
    footprint: Footprint
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExperimentPlan:
    """All jobs in the order they run, and the targets.

    Attributes:
        config: what it was made from.
        jobs: the jobs.
        targets: parsed `iter_targets`.
        problems: everything found wrong, errors and warnings.
    """

    config: SandboxConfig
    jobs: tuple[PlannedJob, ...]
    targets: tuple[Target, ...]
    problems: tuple[Problem, ...]

    @property
    def uses_workers(self) -> bool:
        """Whether any job runs in Ray actors."""
        return any(job.hook.uses_workers for job in self.jobs)

    def in_parallel(self, graph: JobGraph) -> bool:
        """Whether jobs, or elements of `foreach`, may run at the same time, where there is room.

        What runs in this process alone shares one interpreter and gains nothing.
        """
        foreach = any(job.entry.config.foreach for job in self.jobs)
        wide = foreach or (self.uses_workers and not graph.is_chain)
        return wide and self.config.settings.max_parallel_jobs != 1

    def graph(self, updates: Mapping[JobEntry, Mapping[str, Any]] | None = None) -> JobGraph:
        """Which jobs of an iteration must wait for which.

        Args:
            updates: what `iter_updater` brings; a text among it may change what its job writes.
        """
        positions = {job.entry: number for number, job in enumerate(self.jobs)}
        prints = [
            replace(
                job.footprint,
                open=job.footprint.open or bool([*strings(list((updates or {}).get(job.entry, {}).values()))]),
            )
            for job in self.jobs
        ]
        return job_graph(prints, [[positions[need] for need in job.needs if need in positions] for job in self.jobs])


def make_plan(config: SandboxConfig, paths: PathMap | None = None) -> ExperimentPlan:
    """Plans an experiment without running or importing anything heavy.

    Args:
        config: the configuration.
        paths: where inputs are looked up; the current directory by default.
    """
    planner = _Planner(config, paths or PathMap(config.settings.work_path))
    jobs = [job for entry in planner.entries if (job := planner.plan_job(entry)) is not None]
    targets = tuple(planner.targets())
    planner.check_updater()
    return ExperimentPlan(config, tuple(jobs), targets, tuple(planner.problems))


def user_code_problems(model: type[BaseModel], raw: Mapping[str, Any], draft: Draft) -> list[Problem]:
    """What of a component's configuration would run code, as far as its values are known."""
    found = code_in_options(model, raw)
    return [draft.problem(path, *words) for path, *words in found if not draft.is_unknown(path)]


@dataclass
class _Planner:
    config: SandboxConfig
    map: PathMap
    problems: list[Problem] = field(default_factory=list)
    written: dict[str, JobEntry] = field(default_factory=dict)
    predicted: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    probes: dict[tuple[str, str | None], JobEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.entries = list(self.config.jobs())
        self.main = self.config.document

    def note(self, path: KeyPath, message: str, fix: str = "", **more: Any) -> None:
        self.problems.append(self.main.problem(path, message, fix, **more))

    def plan_job(self, entry: JobEntry) -> PlannedJob | None:
        try:
            hook: type[Hook] = HOOKS.get(entry.config.hook)
        except UnknownNameError as error:
            self.note((*entry.path, "hook"), str(error))
            return None
        needs = self._check_references(entry)
        if hook.returns and len(entry.config.output) > len(hook.returns):
            returns = ", ".join(hook.returns)
            self.note(
                (*entry.path, "output"),
                f"names {len(entry.config.output)} values; {entry.config.hook} returns {returns}",
            )
        self.problems += model_problems(
            Resources,
            entry.config.resources,
            lambda path, message, fix="": self.main.problem((*entry.path, "resources", *path), message, fix),
        )
        if not self.config.allow_user_code:
            for path, message, fix in code_in_environment(entry.config.runtime_env):
                self.note((*entry.path, "runtime_env", *path), message, fix)
        drafts = put_together(entry, self.main, lambda text: UNKNOWN, open_side=self._open_side)
        self.problems += drafts.problems
        self._check_parts(entry, hook, drafts)
        recipe = drafts.recipe.data if drafts.recipe else None
        paths = hook.paths(recipe, drafts.extra.data if drafts.extra else {})
        sides = [p for p in (entry.config.dj_configs, entry.config.extra_configs) if isinstance(p, str)]
        needs |= self._check_reads(entry, drafts, paths, sides)
        needs |= self._check_probe(entry, hook, drafts.extra.data if drafts.extra else {})
        self._check_writes(entry, paths)
        for path in paths.writes:
            if path != UNKNOWN:
                self.written |= dict.fromkeys(spellings(path), entry)
        for path, content in paths.recipes.items():
            self.predicted |= dict.fromkeys(spellings(path), content)
        ordered = tuple(e for e in self.entries if e in needs)
        extras = extras_of_job(hook, recipe, drafts.extra.data if drafts.extra else {})
        return PlannedJob(entry, hook, paths, ordered, self._footprint(entry, hook, paths, drafts, sides), extras)

    def _footprint(
        self, entry: JobEntry, hook: type[Hook], paths: JobPaths, drafts: Drafts, sides: Sequence[str]
    ) -> Footprint:
        parts = [*(draft.data for draft in drafts.parts.values() if draft), sides, dict(entry.config.runtime_env)]
        probe = f"probe {entry.pipeline} {entry.config.meta_name}"
        return footprint(
            parts,
            [*paths.reads, *paths.models, *sides],
            paths.writes,
            uses=[probe] if hook.needs_probe else [],
            makes=[probe] if hook.is_probe else [],
            is_open=bool(drafts.deferred),
        )

    def _open_side(self, path: str) -> Path | Mapping[str, Any] | None:
        if self._writer(path) is None:
            return Path(self.map.locate(path)).expanduser()
        return next((self.predicted[each] for each in spellings(path) if each in self.predicted), None)

    def _writer(self, path: str) -> JobEntry | None:
        return first_around(path, self.written)

    def _check_references(self, entry: JobEntry) -> set[JobEntry]:
        needs: set[JobEntry] = set()
        references: list[tuple[KeyPath, str]] = []
        references += [((*entry.path, "input", key), text) for key, text in entry.config.input.items()]
        if entry.config.foreach is not None:
            references.append(((*entry.path, "foreach"), entry.config.foreach))
        for where, text in references:
            if text == ITEM and entry.config.foreach is not None:
                continue
            try:
                needs.add(resolve_reference(text, self.entries, entry).entry)
            except UserError as error:
                self.note(where, str(error))
        return needs

    def _check_parts(self, entry: JobEntry, hook: type[Hook], drafts: Drafts) -> None:
        if hook.takes_recipe:
            if drafts.recipe is not None:
                self._check_recipe(drafts.recipe)
            elif "dj_configs" not in drafts.deferred:
                self.note(entry.path, f"{entry.config.hook} needs a recipe", "add dj_configs: a path or a mapping")
        elif entry.config.dj_configs is not None:
            self.note((*entry.path, "dj_configs"), f"has no meaning for {entry.config.hook}", severity="warning")
        if "extra_configs" in drafts.deferred:
            return
        extra = drafts.extra or Draft({}, self.main, (*entry.path, "extra_configs"), self.main)
        try:
            model = hook.model(extra.data)
        except UnknownNameError as error:
            self.problems.append(extra.problem(("type",), str(error)))
            return
        raw = {k: v for k, v in extra.data.items() if k != "type" or hook.components is None}
        right, problems = split(model, raw, extra.problem, extra.is_unknown)
        self.problems += problems
        if not self.config.allow_user_code:
            self.problems += user_code_problems(model, raw, extra)
        weights = model.missing_weights(right) if issubclass(model, Component) else {}
        for key, message in weights.items():
            where = tuple(key.split("."))
            value = _value_at(raw, where)
            if extra.is_unknown(where) or (isinstance(value, str) and self._writer(value)):
                continue  # an earlier job makes it
            refuses = not isinstance(message, FetchedLater)
            self.problems.append(extra.problem(where, message, severity="warning", missing_path=refuses))

    def _check_recipe(self, draft: Draft) -> None:
        for found in recipe_problems(draft.data, allow_user_code=self.config.allow_user_code):
            # A key that does not exist is wrong whatever its value will be.
            if not found.path or not draft.is_unknown(found.path) or found.message.startswith("unknown"):
                more = {"severity": found.severity, "missing_path": found.missing_path}
                self.problems.append(draft.problem(found.path, found.message, found.fix, **more))

    def _check_reads(self, entry: JobEntry, drafts: Drafts, paths: JobPaths, sides: Sequence[str]) -> set[JobEntry]:
        needs = set()
        named = strings([draft.data for draft in drafts.parts.values() if draft])
        for path in dict.fromkeys([*paths.reads, *paths.models, *sides, *named]):
            writer = self._writer(path) if path != UNKNOWN else None
            if writer is not None:
                needs.add(writer)
            elif path != UNKNOWN and self._is_missing(path, paths):
                draft, where = _find(drafts, path)
                found = f"'{path}' does not exist"
                fix = "make it, or correct the path"
                problem = draft.problem(where, found, fix) if draft else self.main.problem(entry.path, found, fix)
                self.problems.append(replace(problem, severity="warning", missing_path=True))
        return needs

    def _is_missing(self, path: str, paths: JobPaths) -> bool:
        wanted = path in paths.reads or (path in paths.models and path.startswith(("/", "./", "../", "~")))
        return wanted and not is_remote(path) and not standing(self.map.locate(path))

    def _check_probe(self, entry: JobEntry, hook: type[Hook], extra: Mapping[str, Any]) -> set[JobEntry]:
        key = (entry.pipeline, entry.config.meta_name)
        probe = self.probes.get(key)
        if hook.wants_probe(extra) and probe is None:
            names = ", ".join(str(name) for pipeline, name in self.probes if pipeline == entry.pipeline)
            fix = f"probes before it: {names}" if names else "add a probe job before it"
            self.note((*entry.path, "meta_name"), f"no earlier probe has the meta_name {entry.config.meta_name!r}", fix)
        if hook.is_probe:
            self.probes[key] = entry
        return {probe} if hook.needs_probe and probe is not None else set()

    def _check_writes(self, entry: JobEntry, paths: JobPaths) -> None:
        work_dir = same_path(str(self.config.settings.work_path))
        reads = {spelling for path in paths.reads for spelling in spellings(path)}
        for path in paths.writes:
            if path == UNKNOWN:
                continue
            normal = same_path(path)
            if not reads.isdisjoint(spellings(path)):
                self.note(entry.path, f"'{path}' is both read and written", "write to another path")
            if any(is_inside(normal, own) for own in own_files(Path(work_dir))):
                self.note(entry.path, f"output '{path}' is the run's own", "choose another name")
            others = [self.written[each].id for each in spellings(path) if each in self.written]
            if others:
                other = others[0]
                message = f"'{path}' is also written by job {other}: jobs after this one read what this one writes"
                self.note(entry.path, message, "give each its own path", severity="warning")
            if entry.config.foreach is not None and not is_inside(same_path(path), work_dir):
                fix = "put it below work_dir: each element then has a folder of its own"
                self.note(entry.path, f"the runs of a foreach job would all write '{path}'", fix)

    def targets(self) -> Iterator[Target]:
        for index, text in enumerate(self.config.settings.iter_targets):
            try:
                yield Target.parse(text, self.entries)
            except UserError as error:
                self.note(("iter_targets", index), str(error))

    def check_updater(self) -> None:
        for source, targets in self.config.settings.iter_updater.items():
            try:
                resolve_reference(source, self.entries)
            except UserError as error:
                self.note(("iter_updater", source), str(error))
            for target in [targets] if isinstance(targets, str) else targets:
                try:
                    self._check_update(source, *split_update(target, self.entries))
                except UserError as error:
                    self.note(("iter_updater", source), str(error))

    def _check_update(self, source: str, entry: JobEntry, key: str) -> None:
        """Whether the next iteration can take the value: as if the key had been given in the file."""
        drafts = put_together(entry, self.main, lambda text: UNKNOWN, open_side=self._open_side, updates={key: UNKNOWN})
        before = len(self.problems)
        self._check_parts(entry, HOOKS.get(entry.config.hook), drafts)
        new = [problem for problem in self.problems[before:] if problem not in self.problems[:before]]
        self.problems[before:] = []
        for problem in new:
            self.note(("iter_updater", source), f"{key}: {problem.message}", problem.fix)


def split_update(target: str, jobs: Sequence[JobEntry]) -> tuple[JobEntry, str]:
    """Splits `<pipeline>.<meta_name>.<dj_configs|extra_configs>.<key>` into the job and its key.

    Raises:
        UserError: it names no job, several jobs, or no key.
    """
    found = []
    for entry in jobs:
        key = target.removeprefix(f"{entry.pipeline}.{entry.config.meta_name}.")
        if key != target and key.startswith(("dj_configs.", "extra_configs.")):
            found.append((entry, key))
    if len(found) != 1:
        problem = "is ambiguous: several jobs share the name" if found else "names no job's configuration"
        raise UserError(f"'{target}' {problem}; write <pipeline>.<meta_name>.<dj_configs|extra_configs>.<key>")
    return found[0]


def _value_at(raw: Any, where: KeyPath) -> Any:
    for key in where:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def _find(drafts: Drafts, path: str) -> tuple[Draft | None, KeyPath]:
    """Where a path stands in a job's configurations, for its line."""
    for draft in drafts.parts.values():
        where = place_of(draft.data, path) if draft else None
        if where is not None:
            return draft, where
    return None, ()
