"""A job's units over its workers: one unit per call, lost workers replaced, results as they come."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.progress import Progress
from raysandbox.core.runner import UnitWork
from raysandbox.runtime.actors import LOST_TRIES, PULL_S, START_S, WorkerJob, WorkerLost, failure, start_actor
from raysandbox.runtime.placement import Resources, placement_group_for
from raysandbox.runtime.session import Cluster, cluster_summary, ensure_ray
from raysandbox.runtime.unit_actor import UnitActor
from raysandbox.runtime.worker_log import LogFollower

__all__ = ["JobWorkers"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobWorkers:
    """`core.runner.Workers` on Ray: one actor in each bundle of the job's placement group.

    Attributes:
        job: what is to run, with its resources.
        log: the job's log file; the output of worker 2 goes to `LOG.2.log`, and so on.
        progress: receives the progress.
    """

    job: WorkerJob
    log: Path
    progress: Progress

    def map(
        self,
        work: UnitWork,
        units: Sequence[Any],
        *,
        description: str = "",
        python: str | None = None,
        num_workers: int | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Does every unit once (see `core.runner.Workers.map`)."""
        if not units:
            return
        ensure_ray()
        resources = _completed(self.job.resources, num_workers or 1, len(units), cluster_summary())
        self.progress.begin(description or self.job.id, len(units), "units")
        try:
            with placement_group_for(resources) as group:
                crew = _Crew(
                    _Bundles(self.job.id, resources, self.job.runtime_env), self.log, work, units, group, python
                )
                try:
                    for index, result in crew.run():
                        self.progress.advance(1)
                        yield index, result
                finally:
                    crew.end()
        finally:
            self.progress.end()


def _completed(given: Resources, num_workers: int, most: int, cluster: Cluster) -> Resources:
    """What is asked, with what it leaves open: `num_workers`, and a GPU for each where there are as many."""
    size = min(given.num_workers if "num_workers" in given.model_fields_set else num_workers, most)
    gpus = given.num_gpus
    if "num_gpus" not in given.model_fields_set and cluster.total("GPU") >= size:
        gpus = 1.0
    return given.model_copy(update={"num_workers": size, "num_gpus": gpus})


@dataclass(frozen=True)
class _Bundles:
    """A `WorkerJob` with the resources that it got."""

    id: str
    resources: Resources
    runtime_env: Mapping[str, Any]


@dataclass
class _Slot:
    """One bundle and what works in it.

    Attributes:
        number: of the bundle.
        actor: in it.
        call: what the actor does now.
        unit: index of the unit that it does; None while it starts.
        follower: copies its output; None before it has started.
        born: when it was asked for, in seconds.
    """

    number: int
    actor: Any
    call: Any
    unit: int | None = None
    follower: LogFollower | None = None
    born: float = field(default_factory=time.monotonic)

    @property
    def where(self) -> str:
        """What it is at, for messages and counts."""
        return f"while starting in bundle {self.number}" if self.unit is None else f"on unit {self.unit}"


class _Crew:
    """The workers of one `map`."""

    def __init__(
        self, job: WorkerJob, log: Path, work: UnitWork, units: Sequence[Any], group: Any, python: str | None
    ) -> None:
        self._job, self._log, self._work, self._units = job, log, work, units
        self._group, self._python = group, python
        self._waiting = deque(range(len(units)))
        self._lost: Counter[str] = Counter()  # by unit, or by bundle while a worker starts in it
        self._slots: list[_Slot] = []

    def run(self) -> Iterator[tuple[int, Any]]:
        """Yields (index, result) as units end."""
        import ray

        self._slots = [self._started(number) for number in range(self._job.resources.num_workers)]
        while busy := {slot.call: slot for slot in self._slots if slot.call is not None}:
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=PULL_S)
            for slot in self._slots:
                if slot.follower:
                    slot.follower.pull()
                elif time.monotonic() > slot.born + START_S:
                    raise JobFailed(f"a worker did not start within {START_S:g} s")
            for call in ready:
                yield from self._ended(busy[call])

    def end(self) -> None:
        """Ends the actors; the last words of each are in the logs."""
        import ray

        for slot in self._slots:
            ray.kill(slot.actor)
            if slot.follower:
                slot.follower.pull(last=True)
                slot.follower.close()

    def _started(self, number: int) -> _Slot:
        actor = start_actor(UnitActor, self._job, self._group, number, self._python)
        return _Slot(number, actor, actor.start.remote())

    def _ended(self, slot: _Slot) -> Iterator[tuple[int, Any]]:
        """Takes what a worker's call returned and gives it the next one."""
        import ray
        from ray.exceptions import RayError

        try:
            result: Any = ray.get(slot.call)
        except RayError as error:
            self._replace(slot, error)
            return
        if slot.follower is None:
            slot.follower = LogFollower(result, self._log_of(slot.number))
            slot.call = slot.actor.load.remote(self._work, self._job.resources.num_gpus > 0)
            return
        if slot.unit is None:
            del self._lost[slot.where]  # it has loaded
        else:
            yield slot.unit, result
        slot.unit = self._waiting.popleft() if self._waiting else None
        slot.call = None if slot.unit is None else slot.actor.run.remote(self._units[slot.unit])

    def _replace(self, slot: _Slot, error: Exception) -> None:
        """Puts a new worker in the place of a lost one, whose unit comes next; other failures are raised."""
        import ray

        ray.kill(slot.actor)  # what is not dead would hold the bundle
        if slot.follower:
            slot.follower.pull(last=True)
            slot.follower.close()
        log = self._log_of(slot.number)
        reason = failure(error, slot.follower.tail if slot.follower else "", log)
        if not isinstance(reason, WorkerLost):
            raise reason from error
        logger.warning("job %s lost a worker: %s", self._job.id, str(reason).splitlines()[0])
        where = slot.where
        self._lost[where] += 1
        if self._lost[where] > LOST_TRIES:
            raise JobFailed(f"the worker died {self._lost[where]} times {where}: {reason}") from error
        if slot.unit is not None:
            self._waiting.appendleft(slot.unit)
        self._slots[slot.number] = self._started(slot.number)

    def _log_of(self, number: int) -> Path:
        return self._log.with_suffix(f".{number}{self._log.suffix}") if number else self._log
