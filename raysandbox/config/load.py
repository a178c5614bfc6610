"""From a file to a `SandboxConfig`: every problem of the format at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysandbox.config.documents import Document, KeyPath, load_document
from raysandbox.config.dotted import apply_overrides
from raysandbox.config.schema import JobConfig, JobEntry, Pipeline, SandboxConfig, Settings
from raysandbox.config.stages import JOBS_SUFFIX, STAGES, stage_order
from raysandbox.config.validation import fit
from raysandbox.core.errors import ConfigError, Problem, did_you_mean

__all__ = ["ANONYMOUS", "load_config", "parse_config", "read_config"]

ANONYMOUS = "anonymous"


def load_config(path: str | Path, overrides: Sequence[str] = (), *, allow_user_code: bool = False) -> SandboxConfig:
    """Reads a sandbox configuration.

    Args:
        path: YAML or JSON file.
        overrides: `path=value` strings, as after `-o`.
        allow_user_code: whether code that its recipes name may run.

    Raises:
        ConfigError: with every problem of the format.
    """
    config, problems = read_config(path, overrides, allow_user_code=allow_user_code)
    if config is None or any(problem.severity == "error" for problem in problems):
        raise ConfigError(problems)
    return config


def read_config(
    path: str | Path, overrides: Sequence[str] = (), *, allow_user_code: bool = False
) -> tuple[SandboxConfig | None, list[Problem]]:
    """Reads as much of a configuration as can be read, with the problems of the rest.

    Raises:
        ConfigError: the file cannot be parsed at all.
    """
    config, problems = parse_config(apply_overrides(load_document(path), overrides))
    return config and replace(config, allow_user_code=allow_user_code), problems


def parse_config(document: Document) -> tuple[SandboxConfig | None, list[Problem]]:
    """Turns a document into a configuration; jobs with problems are left out."""
    if not isinstance(document.data, dict):
        return None, [document.problem((), "is not a mapping", "start with project_name: … and job lists")]
    parser = _Parser(document)
    config = parser.parse()
    return config, parser.problems


class _Parser:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def parse(self) -> SandboxConfig:
        data: dict[str, Any] = self.document.data
        raw = {k: v for k, v in data.items() if v is not None and k != "pipelines" and not k.endswith(JOBS_SUFFIX)}
        settings, problems = fit(Settings, raw, self.document.problem)
        self.problems += problems
        settings = settings or Settings.model_validate({})
        return SandboxConfig(settings, tuple(self._pipelines(settings)), self.document)

    def _pipelines(self, settings: Settings) -> Iterator[Pipeline]:
        data = self.document.data
        lists = [key for key in data if key.endswith(JOBS_SUFFIX)]
        if data.get("pipelines") is not None:
            if lists:
                self._note((lists[0],), "stands beside `pipelines`", "move the job list into a pipeline")
            sections = list(self._named_sections(data["pipelines"]))
        else:
            sections = [(ANONYMOUS, {key: data[key] for key in lists}, ())]
        used = [key.removesuffix(JOBS_SUFFIX) for _, section, _ in sections for key in section]
        order = settings.stages or stage_order(used)
        total = 0
        for name, section, path in sections:
            jobs = tuple(self._jobs(name, section, path, order))
            total += len(jobs)
            yield Pipeline(name, jobs)
        if not total and not self.problems:
            self._note((), "holds no jobs", f"add a job list such as probe{JOBS_SUFFIX}")

    def _named_sections(self, pipelines: Any) -> Iterator[tuple[str, Mapping[str, Any], KeyPath]]:
        entries: list[tuple[Any, KeyPath]] = []
        if isinstance(pipelines, dict):
            entries = [({name: section}, ("pipelines",)) for name, section in pipelines.items()]
        elif isinstance(pipelines, list):
            entries = [(item, ("pipelines", index)) for index, item in enumerate(pipelines)]
        else:
            self._note(("pipelines",), "should be a list of one-key maps, or a map")
        seen: set[str] = set()
        for item, path in entries:
            if not isinstance(item, dict) or len(item) != 1:
                self._note(path, "should be a map with one key, the pipeline's name")
                continue
            (name, section), here = next(iter(item.items())), (*path, next(iter(item)))
            if name in seen or "." in name:
                self._note(
                    here, f"pipeline name '{name}' " + ("is used twice" if name in seen else "must not hold a dot")
                )
            seen.add(name)
            if not isinstance(section, dict):
                self._note(here, "should be a map of job lists")
                continue
            yield name, section, here

    def _jobs(
        self, pipeline: str, section: Mapping[str, Any], path: KeyPath, order: Sequence[str]
    ) -> Iterator[JobEntry]:
        for key in section:
            stage = key.removesuffix(JOBS_SUFFIX)
            if not key.endswith(JOBS_SUFFIX) or stage not in order:
                keys = [name + JOBS_SUFFIX for name in {*order, *STAGES.names()}]
                fix = did_you_mean(key, keys) or f"known: {', '.join(sorted(keys))}; name your own in `stages`"
                self._note((*path, key), f"unknown stage '{stage}'", fix)
        index = 0
        for stage in order:
            entries = section.get(stage + JOBS_SUFFIX) or []
            here = (*path, stage + JOBS_SUFFIX)
            if not isinstance(entries, list):
                self._note(here, "should be a list of jobs")
                continue
            for number, raw in enumerate(entries):
                config = self._job(raw, (*here, number))
                if config is not None:
                    yield JobEntry(pipeline, stage, index, config, (*here, number))
                index += 1

    def _job(self, raw: Any, path: KeyPath) -> JobConfig | None:
        if not isinstance(raw, dict):
            self._note(path, "should be a mapping with the key `hook`")
            return None
        given = {key: value for key, value in raw.items() if value is not None}  # `extra_configs:` left empty
        config, problems = fit(JobConfig, given, lambda p, m, f="": self.document.problem((*path, *p), m, f))
        self.problems += problems
        return config

    def _note(self, path: KeyPath, message: str, fix: str = "") -> None:
        self.problems.append(self.document.problem(path, message, fix))
