"""The stages of a pipeline: named job lists and their order.

A package adds a stage by an entry point of the group `raysandbox.stage`; its jobs then stand
under `<name>_job_configs` and run after the stage that it names.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from raysandbox.core.component import Component
from raysandbox.core.registry import Registry, register

__all__ = ["DEFAULT_STAGES", "JOBS_SUFFIX", "STAGES", "Stage", "stage_order"]

STAGES = Registry("stage")
JOBS_SUFFIX = "_job_configs"
DEFAULT_STAGES = ("probe", "refine_recipe", "execution", "evaluation")


class Stage(Component):
    """A job list of a pipeline.

    Class attributes:
        after: the stage that it follows when a configuration does not order the stages itself.
    """

    registry: ClassVar[Registry] = STAGES
    after: ClassVar[str | None] = None


@register("probe")
class Probe(Stage):
    """Looks at the data, or at what a model makes of it."""


@register("refine_recipe")
class RefineRecipe(Stage):
    """Changes the data recipe by what the probes found."""

    after = "probe"


@register("execution")
class Execution(Stage):
    """Processes data, trains, generates."""

    after = "refine_recipe"


@register("evaluation")
class Evaluation(Stage):
    """Scores the data and the models."""

    after = "execution"


def stage_order(used: Collection[str]) -> list[str]:
    """The default stages, with the installed stages among `used` put after those they follow."""
    order: list[str] = [*DEFAULT_STAGES]
    waiting = [name for name in used if name not in order and name in STAGES.names()]
    for name in waiting:
        after = STAGES.get(name).after
        order.insert(order.index(after) + 1 if after in order else len(order), name)
    return order
