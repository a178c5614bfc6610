"""What a program calls: the functions behind the verbs of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raysandbox.config.documents import Document, load_document, place_of
from raysandbox.config.dotted import apply_overrides
from raysandbox.config.load import read_config
from raysandbox.config.schema import SandboxConfig
from raysandbox.config.stages import JOBS_SUFFIX
from raysandbox.core.errors import ConfigError, Problem, SandboxError
from raysandbox.core.names import is_remote
from raysandbox.hpo.planning import plan_search
from raysandbox.recipe.paths import recipe_models, recipe_paths
from raysandbox.recipe.problems import recipe_problems
from raysandbox.report.markdown import write_report
from raysandbox.report.search import write_search_report
from raysandbox.runtime.session import in_ray_job
from raysandbox.sandbox.experiment import RunResult, note_refusal, run_experiment
from raysandbox.sandbox.paths import standing, submitted_note
from raysandbox.sandbox.remote_dir import hosted, mirrored, note_remote_refusal, work_dir_problems
from raysandbox.sandbox.view import RunView

__all__ = ["check", "recipe_document", "run"]


def run(
    config: str | Path | SandboxConfig,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    use_cache: bool = True,
    view: RunView | None = None,
    allow_user_code: bool = False,
) -> RunResult:
    """Runs a sandbox experiment, or with `hpo_config` a search over it, and writes its report.

    Args:
        config: path of a configuration, or a loaded one.
        overrides: `path=value` strings, as after `-o`.
        resume: go on with the run that stands in the work_dir.
        use_cache: whether caches that runs share may be read.
        view: shows progress; nothing by default.
        allow_user_code: whether code that recipes name may run, such as custom operators.

    Raises:
        ConfigError: the configuration or an input is wrong; nothing was started.
        JobFailed: a job failed, or every trial of a search.
        RunInterrupted: a signal ended the run; it can be resumed.
    """
    loaded = config if isinstance(config, SandboxConfig) else _load(config, overrides, allow_user_code)
    if view is not None and in_ray_job() and (note := submitted_note(Path.cwd())):
        view.note(note)
    with hosted(loaded, resume=resume, view=view) as here:
        if here.settings.hpo_config is None:
            return run_experiment(here, resume=resume, use_cache=use_cache, view=view, at_end=write_report)
        from raysandbox.hpo.search import run_search

        return run_search(here, resume=resume, use_cache=use_cache, view=view, at_end=write_search_report)


def _load(path: str | Path, overrides: Sequence[str], allow_user_code: bool) -> SandboxConfig:
    """Loads a configuration; a refused one is said in its work_dir's `status.json`, where that is known."""
    loaded, problems = read_config(path, overrides, allow_user_code=allow_user_code)
    errors = [problem for problem in problems if problem.severity == "error"]
    if loaded is None or errors:
        error = ConfigError(errors)
        if loaded is not None and not note_remote_refusal(loaded, error):
            note_refusal(loaded, error)
        raise error
    return loaded


def check(config: str | Path, overrides: Sequence[str] = (), *, allow_user_code: bool = False) -> list[Problem]:
    """Everything that is wrong with a configuration, as far as it can be known without running.

    Args:
        config: path of a configuration, or of a recipe.
        overrides: `path=value` strings, as after `-o`.
        allow_user_code: whether files of custom operators may be imported, which runs their code.

    Returns:
        errors and warnings, in the order of their lines; empty when all is well.
    """
    try:
        recipe = recipe_document(config, overrides)
        if recipe is not None:
            return _check_recipe(recipe, allow_user_code)
        loaded, problems = read_config(config, overrides, allow_user_code=allow_user_code)
    except ConfigError as error:
        return list(error.problems)
    except SandboxError as error:
        return [Problem(str(config), None, "", str(error))]
    if loaded is not None:
        problems = problems + work_dir_problems(loaded) + list(plan_search(mirrored(loaded))[0].problems)
    return sorted(problems, key=lambda problem: (problem.file != str(config), problem.file or "", problem.line or 0))


def recipe_document(path: str | Path, overrides: Sequence[str]) -> Document | None:
    """The document at a path if it is a recipe: it has operators or data, and no jobs."""
    document = apply_overrides(load_document(path), overrides)
    keys = document.data.keys() if isinstance(document.data, dict) else frozenset()
    jobs = any(key == "pipelines" or str(key).endswith(JOBS_SUFFIX) for key in keys)
    return document if not jobs and keys & {"process", "dataset_path", "dataset"} else None


def _check_recipe(document: Document, allow_user_code: bool) -> list[Problem]:
    """The problems of a recipe that stands alone; missing data are warnings."""
    problems = [
        document.problem(found.path, found.message, found.fix, severity=found.severity)
        for found in recipe_problems(document.data, allow_user_code=allow_user_code)
    ]
    reads, _ = recipe_paths(document.data)
    models = [path for path in recipe_models(document.data) if path.startswith(("/", "./", "../", "~"))]
    for path in [*reads, *models]:
        if not is_remote(path) and not standing(path):
            where = place_of(document.data, path) or ()
            problem = document.problem(where, f"'{path}' does not exist", "make it, or correct the path")
            problems.append(replace(problem, severity="warning", missing_path=True))
    return sorted(problems, key=lambda problem: problem.line or 0)
