"""What a program calls: the functions behind the verbs of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raysandbox.config.load import read_config
from raysandbox.config.schema import SandboxConfig
from raysandbox.core.errors import ConfigError, Problem, SandboxError
from raysandbox.report.markdown import write_report
from raysandbox.sandbox.experiment import RunResult, note_refusal, run_experiment
from raysandbox.sandbox.plan import make_plan
from raysandbox.sandbox.view import RunView

__all__ = ["check", "run"]


def run(
    config: str | Path | SandboxConfig,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    use_cache: bool = True,
    view: RunView | None = None,
    allow_user_code: bool = False,
) -> RunResult:
    """Runs a sandbox experiment and writes its report.

    Args:
        config: path of a configuration, or a loaded one.
        overrides: `path=value` strings, as after `-o`.
        resume: go on with the run that stands in the work_dir.
        use_cache: whether caches that runs share may be read.
        view: shows progress; nothing by default.
        allow_user_code: whether code that recipes name may run, such as custom operators.

    Raises:
        ConfigError: the configuration or an input is wrong; nothing was started.
        JobFailed: a job failed.
        RunInterrupted: a signal ended the run; it can be resumed.
    """
    loaded = config if isinstance(config, SandboxConfig) else _load(config, overrides, allow_user_code)
    return run_experiment(loaded, resume=resume, use_cache=use_cache, view=view, at_end=write_report)


def _load(path: str | Path, overrides: Sequence[str], allow_user_code: bool) -> SandboxConfig:
    """Loads a configuration; a refused one is said in its work_dir's `status.json`, where that is known."""
    loaded, problems = read_config(path, overrides, allow_user_code=allow_user_code)
    errors = [problem for problem in problems if problem.severity == "error"]
    if loaded is None or errors:
        error = ConfigError(errors)
        if loaded is not None:
            note_refusal(loaded, error)
        raise error
    return loaded


def check(config: str | Path, overrides: Sequence[str] = (), *, allow_user_code: bool = False) -> list[Problem]:
    """Everything that is wrong with a configuration, as far as it can be known without running.

    Args:
        config: path of a configuration.
        overrides: `path=value` strings, as after `-o`.
        allow_user_code: whether files of custom operators may be imported, which runs their code.

    Returns:
        errors and warnings, in the order of their lines; empty when all is well.
    """
    try:
        loaded, problems = read_config(config, overrides, allow_user_code=allow_user_code)
    except ConfigError as error:
        return list(error.problems)
    except SandboxError as error:
        return [Problem(str(config), None, "", str(error))]
    if loaded is not None:
        problems = problems + list(make_plan(loaded).problems)
    return sorted(problems, key=lambda problem: (problem.file != str(config), problem.file or "", problem.line or 0))
