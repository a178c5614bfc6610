"""What a configuration needs, for `raysandbox doctor`: problems, extras, places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysandbox.config.schema import SandboxConfig
    from raysandbox.core.errors import Problem
    from raysandbox.sandbox.plan import ExperimentPlan
    from raysandbox.watcher.config import WandbMode

__all__ = ["Needs", "needs_of"]


@dataclass(frozen=True)
class Needs:
    """What a configuration needs; nothing without one.

    Attributes:
        config: its file, "" without one.
        problems: what `check` finds.
        extras: extra → the jobs that need it.
        work_dir: folder or URL of the run, "" for a recipe.
        mirror: the local folder that stands for a URL, "" where the work_dir is a folder.
        cache_dir: as configured.
        wandb: the mode that it asks for.
        plan: its jobs, None where they cannot be known.
    """

    config: str = ""
    problems: Sequence[Problem] = ()
    extras: Mapping[str, Sequence[str]] = field(default_factory=dict)
    work_dir: str = ""
    mirror: str = ""
    cache_dir: str | None = None
    wandb: WandbMode = "auto"
    plan: ExperimentPlan | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether `check` finds errors."""
        return any(problem.severity == "error" for problem in self.problems)


def needs_of(config: str, overrides: Sequence[str], allow_user_code: bool) -> Needs:
    """Reads a configuration or a recipe; starts nothing.

    Args:
        config: its file.
        overrides: `path=value` strings.
        allow_user_code: whether files of custom operators may be imported.
    """
    from raysandbox.api import check
    from raysandbox.config.load import read_config
    from raysandbox.core.errors import SandboxError

    problems = check(config, overrides, allow_user_code=allow_user_code)
    recipe = _recipe_extras(config, overrides)
    if recipe is not None:
        return Needs(config, problems, dict.fromkeys(recipe, ("the recipe",)))
    try:
        loaded, _ = read_config(config, overrides, allow_user_code=allow_user_code)
    except SandboxError:  # which the problems tell
        loaded = None
    return Needs(config, problems) if loaded is None else _of_experiment(config, problems, loaded)


def _of_experiment(config: str, problems: Sequence[Problem], loaded: SandboxConfig) -> Needs:
    from raysandbox.core.names import is_remote
    from raysandbox.hpo.planning import plan_search
    from raysandbox.sandbox.experiment import locate_run
    from raysandbox.sandbox.paths import PathMap
    from raysandbox.sandbox.remote_dir import mirrored

    settings = loaded.settings
    here = mirrored(loaded)
    work_dir, root = locate_run(here)
    plan, _ = plan_search(here, PathMap(work_dir, root))
    extras: dict[str, list[str]] = {}
    for job in plan.jobs:
        for extra in job.extras:
            extras.setdefault(extra, []).append(job.entry.id)
    if settings.hpo_config is not None:
        extras.setdefault("hpo", []).append("hpo_config")
    if settings.watcher.wandb in ("online", "offline"):
        extras.setdefault("wandb", []).append("watcher.wandb")
    remote = is_remote(settings.work_dir or "")
    folder = str(work_dir.absolute())
    return Needs(
        config,
        problems,
        extras,
        str(settings.work_dir) if remote else folder,
        folder if remote else "",
        settings.cache_dir,
        settings.watcher.wandb,
        plan,
    )


def _recipe_extras(config: str, overrides: Sequence[str]) -> tuple[str, ...] | None:
    """The extras of a recipe that stands alone; None for anything else."""
    from raysandbox.api import recipe_document
    from raysandbox.core.errors import SandboxError
    from raysandbox.sandbox.extras import extras_of_recipe

    try:
        document = recipe_document(config, overrides)
    except SandboxError:  # which the problems tell
        return None
    return None if document is None else extras_of_recipe(document.data)
