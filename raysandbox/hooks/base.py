"""What a hook is: it ties a job of the configuration to a component or to the recipe engine.

A hook says which configuration it understands and which paths its job reads and writes, so that
a run can be checked and planned without running; `run` does the work.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from raysandbox.core.component import Component, PathRole, path_refs
from raysandbox.core.errors import UnknownNameError
from raysandbox.core.progress import Progress
from raysandbox.core.registry import Registry
from raysandbox.core.runner import Emit
from raysandbox.runtime.placement import Resources

if TYPE_CHECKING:
    from raysandbox.runtime.watcher_actor import Reporter

__all__ = ["HOOKS", "Hook", "Job", "JobContext", "JobPaths", "NoSettings"]


def _hook_name(stem: str) -> str:
    return "".join(word.capitalize() for word in stem.split("_")) + "Hook"


HOOKS = Registry(
    "hook",
    ["raysandbox.hooks"],
    name_of=_hook_name,
    planned=[
        "GeneralProbeHook",
        "DataPoolManipulationHook",
    ],
)


class NoSettings(BaseModel):
    """For hooks that take no `extra_configs`."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class JobPaths:
    """What a job reads and writes, as far as its configuration tells.

    Attributes:
        reads: data, weights and recipes that must stand before it starts.
        models: model directories or names; a missing one is found by its component.
        writes: files and directories that it makes.
        recipes: recipe files among `writes` whose content is known up to its thresholds.
    """

    reads: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job whose configuration is complete.

    Attributes:
        id: `pipeline.meta_name#index`.
        name: what its metrics are filed under.
        recipe: the data recipe, or None.
        extra: the other configuration, with `type` where there is one.
        resources: what its workers need.
        runtime_env: Ray runtime environment of its workers.
        models: folders, files and names of hubs that its workers load.
    """

    id: str
    name: str
    recipe: Mapping[str, Any] | None
    extra: Mapping[str, Any]
    resources: Resources
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()


def _to_nowhere(event: str, **fields: Any) -> None:
    """For jobs outside of a run, which have no journal."""


@dataclass(frozen=True)
class JobContext:
    """What a running job gets from the experiment.

    Attributes:
        artifacts: the job's own folder, empty at its start but for `Component.kept_artifacts`.
        quarantine: where rows that fail are written.
        log: the job's log file.
        report: sends the job's metrics to the watcher.
        progress: shows how far the job is.
        probe: folder of the artefacts of the nearest earlier probe of the same meta_name, if any.
        cache_dir: what runs share.
        use_cache: whether caches may be read.
        allow_user_code: whether code that a recipe names may run.
        expect_repeats: whether runs with other thresholds follow, as in a search.
        emit: appends an event to the run's journal.
        execution: a name that only this execution of the job has; its retries have the same.
    """

    artifacts: Path
    quarantine: Path
    log: Path
    report: Reporter
    progress: Progress
    probe: Path | None
    cache_dir: Path
    use_cache: bool = True
    allow_user_code: bool = False
    expect_repeats: bool = False
    emit: Emit = _to_nowhere
    execution: str = field(default_factory=lambda: uuid.uuid4().hex)


class Hook:
    """A kind of job.

    Class attributes:
        takes_recipe: whether `dj_configs` is needed.
        components: registry that `extra_configs.type` chooses from, if it does.
        settings: model of `extra_configs` where no type chooses it.
        uses_workers: whether it runs Ray actors, so that a run with it starts Ray at once.
        is_probe: whether refinements of the same meta_name use its artefacts.
        needs_probe: whether it uses those of a probe of the same meta_name.
        returns: what it returns, in order, for `output` to name.
        returns_paths: whether that is always paths, so that none of it can be a metric.
    """

    registry: ClassVar[Registry] = HOOKS
    type_name: ClassVar[str] = ""
    takes_recipe: ClassVar[bool] = False
    components: ClassVar[Registry | None] = None
    settings: ClassVar[type[BaseModel]] = NoSettings
    uses_workers: ClassVar[bool] = False
    is_probe: ClassVar[bool] = False
    needs_probe: ClassVar[bool] = False
    returns: ClassVar[tuple[str, ...]] = ()
    returns_paths: ClassVar[bool] = False

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's docstring."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]

    @classmethod
    def model(cls, extra: Mapping[str, Any]) -> type[BaseModel]:
        """The model that `extra_configs` must fit, less `type`.

        Raises:
            UnknownNameError: no component of that type; the message names the close ones.
        """
        if cls.components is None:
            return cls.settings
        if "type" not in extra:
            raise UnknownNameError(f"`type` is missing; known: {', '.join(cls.components.names())}")
        return cls.components.get(extra["type"])

    @classmethod
    def wants_probe(cls, extra: Mapping[str, Any]) -> bool:
        """Whether it cannot do without a probe of the same meta_name."""
        return cls.needs_probe

    @classmethod
    def paths(cls, recipe: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> JobPaths:
        """What the job reads and writes; works on configurations that are still incomplete."""
        try:
            model = cls.model(extra)
        except UnknownNameError:
            return JobPaths()
        refs = list(path_refs(model, extra))
        by_role = {role: tuple(ref.path for ref in refs if ref.role is role) for role in PathRole}
        more = tuple(model.more_inputs(extra)) if issubclass(model, Component) else ()
        return JobPaths(by_role[PathRole.INPUT] + more, by_role[PathRole.MODEL], by_role[PathRole.OUTPUT])

    @classmethod
    def forecast(cls, job: Job, cache_dir: Path, allow_user_code: bool) -> str:
        """What can be said of a run of the job before it starts, in a line for `plan`; may be empty."""
        return ""

    @classmethod
    def component(cls, extra: Mapping[str, Any]) -> Any:
        """The component, or the settings, that `extra_configs` describes."""
        return cls.model(extra).model_validate(
            {key: value for key, value in extra.items() if key != "type" or cls.components is None}
        )

    def run(self, job: Job, context: JobContext) -> Sequence[Any]:
        """Does the work and returns the values that `output` may name, in order.

        Raises:
            JobFailed: the job ended without its outputs.
        """
        raise NotImplementedError
