"""Where units run: in this process, or as a Ray Data pipeline. Both give the same results, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from raysandbox.recipe.parts import Unit, UnitReport, UnitWork

__all__ = ["Engine", "LocalEngine", "engine_named"]


class Engine(Protocol):
    """Does units of work."""

    name: str

    def run(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitReport]:
        """Yields the reports in the order of the units; their files stand in `work.staging`."""
        ...


class LocalEngine:
    """One unit after the other, in this process."""

    name = "local"

    def run(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitReport]:
        """Yields the reports in the order of the units."""
        return map(work.run, units)


def engine_named(name: str, most: int | None = None) -> Engine:
    """The engine "local" or "ray"; `most` bounds the units that run at once on Ray."""
    if name == "local":
        return LocalEngine()
    from raysandbox.recipe.ray_data import RayDataEngine

    return RayDataEngine(most)
