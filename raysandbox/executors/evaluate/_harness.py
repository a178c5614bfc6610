"""lm-evaluation-harness in a worker: finding tasks, keeping it from the network, forks and foreign code."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raysandbox.core.errors import JobFailed, MissingExtraError, UserError, did_you_mean

__all__ = ["Harness", "files_of", "is_path"]


@dataclass(frozen=True)
class Harness:
    """A whole evaluation as one unit of work (`core.runner.UnitWork`).

    Attributes:
        model_args: arguments of the harness's `hf` model.
        options: arguments of its `simple_evaluate`.
        include: folders with task files.
        folder: where relative paths in task files start.
        offline: whether nothing may be fetched.
        allow_user_code: whether task files outside the harness may name Python functions.
    """

    model_args: dict[str, Any]
    options: dict[str, Any]
    include: tuple[str, ...]
    folder: str
    offline: bool
    allow_user_code: bool

    def load(self, device: str) -> str:
        """Prepares the process; returns the device. The variables are read when the packages are imported."""
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        os.environ["DISABLE_MULTIPROC"] = "1"  # it would fork a process that holds Ray
        if self.offline:
            os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
        return device

    def run(self, unit: Sequence[str], state: str) -> str:
        """Evaluates tasks, given by name or path; returns what the harness found as JSON.

        Raises:
            MissingExtraError: the harness is not installed.
            UserError: a task is unknown, or brings code that may not run.
            JobFailed: data or the model are not on this machine.
        """
        try:
            harness: Any = importlib.import_module("lm_eval")
            tasks: Any = importlib.import_module("lm_eval.tasks")
        except ImportError as error:
            raise MissingExtraError(error.name or "lm_eval", "lm-eval", "The evaluator lm_eval") from error
        errors: Any = importlib.import_module("datasets.exceptions")
        names, manager = self._tasks(unit, tasks.TaskManager)
        try:
            with _without_foreign_code(self.allow_user_code):
                results = harness.simple_evaluate(
                    model="hf",
                    model_args=self.model_args,
                    tasks=names,
                    task_manager=manager,
                    device=state,
                    **self.options,
                )
        except (OSError, errors.DatasetsError) as error:  # also what the hub's client raises without a network
            hint = " (give paths of what is on this machine, or set allow_download: true)" if self.offline else ""
            raise JobFailed(f"lm_eval: {type(error).__name__}: {error}{hint}") from error
        return json.dumps(results, default=str)

    def _tasks(self, wanted: Sequence[str], manager_class: Any) -> tuple[list[str], Any]:
        """The names of the tasks, and what knows them.

        Raises:
            UserError: the harness does not know a name, or a file defines no task.
        """
        paths = [Path(one) for one in wanted if is_path(one)]
        folders = [*self.include, *(str(path if path.is_dir() else path.parent) for path in paths)]
        manager = manager_class(include_path=folders, include_defaults=False)
        names = [name for one in wanted for name in (_names_in(Path(one), manager) if is_path(one) else [one])]
        if any(name not in manager.all_tasks for name in names):  # thousands of files: only where they are needed
            manager = manager_class(include_path=folders)
        for name in names:
            if name not in manager.all_tasks:
                hint = did_you_mean(name, manager.all_tasks)
                raise UserError(f"tasks: lm_eval knows no task '{name}'{'; ' + hint if hint else ''}")
        return list(dict.fromkeys(names)), manager


def is_path(task: str) -> bool:
    """Whether a task is given by the path of its file or folder."""
    return task.endswith((".yaml", ".yml")) or os.sep in task


def files_of(task: str) -> list[str]:
    """What a task that is given by a path is made of: its path, and files that its YAML files name.

    Those are the files of `include` and the plain ones of `dataset_kwargs: data_files`; patterns,
    addresses and Python files are not seen.
    """
    path = Path(task)
    found = {task: None}
    waiting = sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
    seen = set(waiting)
    while waiting:
        file = waiting.pop()
        content = _read_task(file)
        kwargs = content.get("dataset_kwargs")
        named = kwargs.get("data_files") if isinstance(kwargs, dict) else None
        found |= dict.fromkeys(data for data in _texts(named) if not re.search(r"[*?\[{]|://", data))
        for base in _texts(content.get("include")):
            included = file.parent / base
            if included not in seen:
                seen.add(included)
                waiting.append(included)
                found[str(included)] = None
    return list(found)


class _PlainLoader(yaml.SafeLoader):
    """Reads task files without what their tags stand for, such as functions."""


_PlainLoader.add_multi_constructor("!", lambda loader, tag, node: None)


def _read_task(file: Path) -> dict[str, Any]:
    """What a task file says; nothing if it cannot be read, which the harness tells better."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _PlainLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, its lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _names_in(path: Path, manager: Any) -> list[str]:
    """The tasks that a file, or the files of a folder, define."""
    files = {file.resolve() for file in (path.rglob("*.y*ml") if path.is_dir() else [path])}
    entries = ((name, entry.yaml_path) for name, entry in manager.task_index.items())
    names = [name for name, file in entries if file is not None and Path(file).resolve() in files]
    if not names:
        raise UserError(f"tasks: {path} defines no task (a task's file has the key `task`)")
    return names


@contextmanager
def _without_foreign_code(allowed: bool) -> Iterator[None]:
    """Within the block, no task file outside the harness brings Python code, and no template reaches internals.

    Such files may name functions, metrics of the package evaluate and ways of transformers to generate,
    both of which are Python files from the hub or from a folder.

    Args:
        allowed: whether they may all the same.
    """
    if allowed:
        yield
        return
    loader: Any = importlib.import_module("lm_eval.tasks._yaml_loader")
    utils: Any = importlib.import_module("lm_eval.utils")
    sandbox: Any = importlib.import_module("jinja2.sandbox")
    task: Any = importlib.import_module("lm_eval.api.task")
    importlib.import_module("lm_eval.api.metrics")  # fills the registry
    registry: Any = importlib.import_module("lm_eval.api.registry")
    models: Any = importlib.import_module("transformers.generation.utils")
    own = Path(loader.__file__).parent.resolve()
    import_function, environment = loader._import_func_in_yml, utils.env
    get_metric, load_generate = task.get_metric, models.GenerationMixin.load_custom_generate

    def refused(name: str, folder: Path) -> Any:
        if folder.resolve().is_relative_to(own):
            return import_function(name, folder)
        raise UserError(f"tasks: a file in {folder} runs Python code ({name}): allow it with --allow-user-code")

    def metric(name: str, of_evaluate: bool = False) -> Any:
        if of_evaluate or name not in registry.metric_registry:
            raise UserError(
                f"tasks: the metric '{name}' is none of lm_eval's own and runs Python code of the package evaluate: "
                f"allow it with --allow-user-code"
            )
        return get_metric(name)

    def no_generate(model: Any, source: Any, **options: Any) -> Any:
        if not os.path.exists(source):  # transformers itself trusts what lies in folders
            return load_generate(model, source, **{**options, "trust_remote_code": False})
        file = Path(source, "custom_generate", "generate.py")
        if file.exists():
            raise UserError(f"{file} would run as custom_generate: allow it with --allow-user-code")
        raise FileNotFoundError(f"there is no {file}")

    closed = sandbox.ImmutableSandboxedEnvironment(
        loader=environment.loader, undefined=environment.undefined, keep_trailing_newline=True
    )
    closed.filters.update(environment.filters)
    loader._import_func_in_yml, utils.env, task.get_metric = refused, closed, metric
    models.GenerationMixin.load_custom_generate = no_generate
    try:
        yield
    finally:
        loader._import_func_in_yml, utils.env, task.get_metric = import_function, environment, get_metric
        models.GenerationMixin.load_custom_generate = load_generate
