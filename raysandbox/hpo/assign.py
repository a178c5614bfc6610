"""Where the values of a trial go: addresses in a configuration, and the configuration with values there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from raysandbox.config.documents import Document
from raysandbox.config.dotted import set_dotted
from raysandbox.config.load import parse_config
from raysandbox.config.schema import JobEntry, SandboxConfig, Settings
from raysandbox.config.stages import JOBS_SUFFIX
from raysandbox.core.errors import ConfigError, UnknownNameError, UserError, did_you_mean
from raysandbox.ops.base import OPERATORS
from raysandbox.recipe.mixture import parse_dataset_path
from raysandbox.recipe.schema import Recipe
from raysandbox.sandbox.drafts import UNKNOWN, Drafts, put_together, spellings
from raysandbox.sandbox.paths import PathMap, first_around
from raysandbox.sandbox.plan import ExperimentPlan, PlannedJob

__all__ = ["Addresses", "with_values"]

_PARTS = ("dj_configs", "extra_configs")
_OF_THE_SEARCH = ("hpo_config", "work_dir", "resume", "cache_dir", "watcher", "project_name", "experiment_name")


def with_values(config: SandboxConfig, values: Iterable[tuple[str, Any]]) -> SandboxConfig:
    """A configuration without `hpo_config` and with values at dotted paths.

    Raises:
        ConfigError: a value cannot stand where it goes.
    """
    document = config.document
    data = _apart({key: value for key, value in document.data.items() if key != "hpo_config"})
    for address, value in values:
        try:
            set_dotted(data, address, _apart(value))
        except KeyError as error:
            message = f"a value for {address} leads nowhere at '{error.args[0]}'"
            raise ConfigError([document.problem((), message, "check the address")]) from error
    data["hpo_config"] = None
    found, problems = parse_config(Document(data, document.source, document.lines, document.places))
    if found is None or any(problem.severity == "error" for problem in problems):
        raise ConfigError(problems)
    return replace(found, allow_user_code=config.allow_user_code)


def _apart(value: Any) -> Any:
    """A copy of a configuration value, in which nothing stands twice as the same object."""
    if isinstance(value, Mapping):
        return {key: _apart(item) for key, item in value.items()}
    return [_apart(item) for item in value] if isinstance(value, list) else value


class Addresses:
    """Finds what the names of parameters mean in a configuration.

    Args:
        config: the configuration.
        plan: of it, without `hpo_config`.
        paths: where side files are looked up.
    """

    def __init__(self, config: SandboxConfig, plan: ExperimentPlan, paths: PathMap) -> None:
        self.config = config
        self.plan = plan
        self._map = paths
        self._drafts: dict[JobEntry, Drafts] = {}

    def find(self, name: str) -> tuple[str, ...]:
        """Dotted paths from the root of the configuration where a parameter's value goes.

        Raises:
            UserError: it means nothing, or one of several things; the message says what to write.
        """
        jobs = [job for job in self.plan.jobs if name.startswith(_prefixes(job.entry))]
        if jobs:
            return (self._in_named_job(name, jobs),)
        first, _, rest = name.partition(".")
        if rest and first in OPERATORS:
            return self._in_recipes(name, first, rest)
        if first in self.config.document.data or first in Settings.model_fields:
            return (self._in_document(name, first),)
        raise UserError(f"'{name}' matches nothing in the configuration; {self._hint(name)}")

    def seeds(self) -> tuple[str, ...]:
        """The seed of every job whose component has one, or whose recipe draws something."""
        found: list[str] = []
        for job in self.plan.jobs:
            drafts = self._drafts_of(job)
            if drafts.recipe is not None and job.hook.takes_recipe and _draws(drafts.recipe.data):
                found += self._unless_given(job.entry, "dj_configs.seed")
            extra = drafts.extra.data if drafts.extra else {}
            try:
                model = job.hook.model(extra)
            except UnknownNameError:
                continue
            if "seed" in model.model_fields:
                found += self._unless_given(job.entry, "extra_configs.seed")
        return tuple(found)

    def _unless_given(self, entry: JobEntry, key: str) -> list[str]:
        """The address of a key, none where an earlier job gives its value."""
        return [] if _overlapping(entry.config.input, key) else [self._of_job(entry, key)]

    def _in_named_job(self, name: str, jobs: Sequence[PlannedJob]) -> str:
        """`<pipeline>.<meta_name>.<dj_configs|extra_configs>.<key>`; a probe and its refinement share the name."""
        if len(jobs) > 1:
            part, key, *_ = name.removeprefix(f"{jobs[0].entry.pipeline}.{jobs[0].entry.config.meta_name}.").split(".")
            jobs = [job for job in jobs if key in self._keys(job, part)] or jobs
        if len(jobs) > 1:
            ids = ", ".join(job.entry.id for job in jobs)
            paths = ", ".join(".".join(map(str, job.entry.path)) for job in jobs)
            raise UserError(f"'{name}' is ambiguous: jobs {ids} share the name; start with one of {paths} instead")
        entry = jobs[0].entry
        return self._of_job(entry, name.removeprefix(f"{entry.pipeline}.{entry.config.meta_name}."))

    def _in_recipes(self, name: str, operator: str, rest: str) -> tuple[str, ...]:
        """`<operator>.<parameter>`: in every recipe that holds the operator and that no earlier job writes."""
        found: list[str] = []
        for job, held in self._recipes:
            if held.count(operator) > 1:
                where = f"{'.'.join(map(str, job.entry.path))}.dj_configs.process.{held.index(operator)}.{name}"
                raise UserError(
                    f"'{name}' is ambiguous: the recipe of {job.entry.id} holds {operator} {held.count(operator)} "
                    f"times; name one by its position, such as {where}"
                )
            if operator in held:
                found.append(self._of_job(job.entry, f"dj_configs.process.{operator}.{rest}"))
        if not found:
            held = sorted({each for _, names in self._recipes for each in names})
            hint = did_you_mean(operator, held) or f"they hold: {', '.join(held) or 'none'}"
            raise UserError(f"'{name}': no recipe of the configuration holds {operator}; {hint}")
        return tuple(found)

    def _in_document(self, name: str, first: str) -> str:
        """A dotted path from the root of the configuration."""
        if first in _OF_THE_SEARCH:
            raise UserError(f"'{name}': {first} belongs to the whole search and cannot differ between trials")
        data = _apart(self.config.document.data)
        try:
            reached = set_dotted(data, name, None)
        except KeyError as error:
            part, known = error.args
            hint = did_you_mean(part, known) or self._hint(name)
            raise UserError(f"'{name}' matches nothing: it leads nowhere at '{part}'; {hint}") from error
        for job in self.plan.jobs:
            path = job.entry.path
            inside = reached[len(path) :]
            if reached[: len(path)] != path or not inside:
                continue
            if inside[0] == "input":
                raise UserError(f"'{name}': input names outputs of earlier jobs; name the key that it fills")
            if inside[0] in (*_PARTS, "local"):
                keys = inside[1:] if inside[0] == "local" else inside
                return self._of_job(job.entry, ".".join(map(str, keys)))
        return name

    def _of_job(self, entry: JobEntry, key: str) -> str:
        """Path of a key of a job's configurations, where nothing else of the job's overrules it.

        Raises:
            UserError: an earlier job gives its value.
        """
        received = _overlapping(entry.config.input, key)
        if received:
            name = f"{entry.pipeline}.{entry.config.meta_name}.{key}"
            raise UserError(
                f"'{name}' comes from '{entry.config.input[received]}' by `input`: a value of the search would have "
                f"no effect; search a parameter of the job that makes it"
            )
        base, part = ".".join(map(str, entry.path)), key.split(".", 1)[0]
        overruled = any(each.split(".", 1)[0] == part for each in entry.config.local)  # whatever its spelling
        return f"{base}.local.{key}" if overruled else f"{base}.{key}"

    def _drafts_of(self, job: PlannedJob) -> Drafts:
        """The job's configurations; of a side file that an earlier job writes nothing is known."""
        if job.entry not in self._drafts:
            position = self.plan.jobs.index(job)
            writes = [path for other in self.plan.jobs[:position] for path in other.paths.writes]
            earlier = {spelling: True for path in writes for spelling in spellings(path)}

            def open_side(path: str) -> Path | None:
                return None if first_around(path, earlier) else Path(self._map.locate(path)).expanduser()

            self._drafts[job.entry] = put_together(
                job.entry, self.config.document, lambda text: UNKNOWN, open_side=open_side
            )
        return self._drafts[job.entry]

    def _keys(self, job: PlannedJob, part: str) -> set[str]:
        """The keys of `dj_configs` or `extra_configs` that a job has or may have, as far as they are known."""
        drafts = self._drafts_of(job)
        if part == "dj_configs":
            return (
                set(drafts.recipe.data) | set(Recipe.model_fields) if drafts.recipe and job.hook.takes_recipe else set()
            )
        if drafts.extra is None:
            return set()
        try:
            return set(drafts.extra.data) | set(job.hook.model(drafts.extra.data).model_fields)
        except UnknownNameError:
            return set(drafts.extra.data)

    @cached_property
    def _recipes(self) -> list[tuple[PlannedJob, list[str]]]:
        """The jobs with a recipe that is known, and the names of its operators in order."""
        found: list[tuple[PlannedJob, list[str]]] = []
        for job in self.plan.jobs:
            draft = self._drafts_of(job).recipe if job.hook.takes_recipe else None
            if draft is not None:
                found.append((job, list(_operators(draft.data))))
        return found

    def _hint(self, name: str) -> str:
        known = list(dict.fromkeys(self._names()))
        fix = "write <operator>.<parameter>, <pipeline>.<meta_name>.extra_configs.<key> or a path of the configuration"
        return did_you_mean(name, known) or fix

    def _names(self) -> Iterator[str]:
        """Names that a parameter may have, as far as they are known."""
        for _, operators in self._recipes:
            for operator in operators:
                fields = OPERATORS.get(operator).model_fields if operator in OPERATORS else ()
                yield from (f"{operator}.{field}" for field in fields)
        for job in self.plan.jobs:
            stage = f"{job.entry.stage}{JOBS_SUFFIX}"
            for key in sorted(self._keys(job, "extra_configs")):
                yield f"{job.entry.pipeline}.{job.entry.config.meta_name}.extra_configs.{key}"
                yield f"{stage}.{job.entry.config.meta_name}.extra_configs.{key}"
        yield from (name for name in Settings.model_fields if name not in _OF_THE_SEARCH)


def _prefixes(entry: JobEntry) -> tuple[str, ...]:
    return tuple(f"{entry.pipeline}.{entry.config.meta_name}.{part}." for part in _PARTS)


def _overlapping(keys: Iterable[str], key: str) -> str | None:
    """The first of the dotted keys that is the same, a parent or a child of a key."""
    return next((k for k in keys if f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}.")), None)


def _operators(recipe: Mapping[str, Any]) -> Iterator[str]:
    steps = recipe.get("process")
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, str):
            yield step
        elif isinstance(step, Mapping) and len(step) == 1:
            yield str(next(iter(step)))


def _draws(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe's result may depend on its seed: it says so, mixes data sets, or selects rows."""
    if "seed" in recipe or any(name.endswith("_selector") for name in _operators(recipe)):
        return True
    dataset = recipe.get("dataset")
    if isinstance(dataset, Mapping):
        parts = dataset.get("configs")
        return dataset.get("max_sample_num") is not None or (isinstance(parts, list) and len(parts) > 1)
    try:
        return len(parse_dataset_path(str(recipe.get("dataset_path", "")))) > 1
    except ValueError:
        return False
