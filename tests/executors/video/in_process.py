"""A job's session without Ray."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.progress import Progress
from raysandbox.core.runner import UnitFailed


class Killed(BaseException):
    """Stands for the death of the driver."""


@dataclass
class InProcessWorkers:
    """`core.runner.Workers`: some workers in turn, units in a shuffled order where a seed is given.

    Attributes:
        number: how many workers.
        order: seed of the order; None for that of the units.
        kill_after: how many units end before the driver dies; None: it lives.
    """

    number: int = 1
    order: int | None = None
    kill_after: int | None = None
    done: list[Any] = field(default_factory=list)
    works: list[Any] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)

    def map(self, work: Any, units: Sequence[Any], *, tries: int = 1, **options: Any) -> Iterator[tuple[int, Any]]:
        self.works.append(work)
        self.options.append({"tries": tries, **options})
        if not units:
            return
        states = [(copy := pickle.loads(pickle.dumps(work)), copy.load("cpu")) for _ in range(self.number)]
        order = list(range(len(units)))
        if self.order is not None:
            random.Random(self.order).shuffle(order)
        for place, index in enumerate(order):
            if place == self.kill_after:
                raise Killed
            own, state = states[place % self.number]
            yield index, self._tried(own, units[index], state, tries)

    def _tried(self, work: Any, unit: Any, state: Any, tries: int) -> Any:
        for left in reversed(range(tries)):
            try:
                result = work.run(pickle.loads(pickle.dumps(unit)), state)
            except Exception as error:  # noqa: BLE001
                if not left:
                    return UnitFailed(str(error))
            else:
                self.done.append(unit)
                return pickle.loads(pickle.dumps(result))
        raise AssertionError


@dataclass
class InProcessSession:
    """A `WorkSession` of a job in a folder; `events` and `metrics` hold what was told."""

    folder: Path
    workers: InProcessWorkers = field(default_factory=InProcessWorkers)
    use_cache: bool = True
    execution: str = "this one"
    allow_user_code: bool = False
    progress: Progress = field(default_factory=Progress)
    scorers: Any = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.artifacts = self.folder / "artifacts" / "00-generate"
        self.quarantine = self.folder / "quarantine" / "00-generate"
        self.cache_dir = self.folder / "cache"
        self.artifacts.mkdir(parents=True, exist_ok=True)

    def report(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.update(metrics)

    def emit(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def told(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]
