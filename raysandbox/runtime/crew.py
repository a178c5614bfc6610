"""The workers of one `Workers.map`: who does which unit, and what happens when one is lost or fails.

One loop waits for whatever ends next, a bundle that is held at last, a worker that has started or
loaded, a unit, and never for one particular thing, so that nothing that hangs keeps the others from
working.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any

from raysandbox.core.errors import JobFailed
from raysandbox.core.runner import Emit, UnitFailed
from raysandbox.runtime.actors import LOST_TRIES, PULL_S, START_S, WorkerLost, failure, start_actor
from raysandbox.runtime.draining import draining_nodes, is_going
from raysandbox.runtime.meter import Meter
from raysandbox.runtime.pace import Pace
from raysandbox.runtime.places import Places
from raysandbox.runtime.slots import Outcome, Seat, Slot, Task, nodes_by_id
from raysandbox.runtime.telemetry import Level, count, observe
from raysandbox.runtime.unit_actor import UnitActor
from raysandbox.runtime.worker_log import LogFollower, WorkerAddress, log_of, where_is

__all__ = ["Crew"]

logger = logging.getLogger(__name__)
_IDLE_S = 0.1
_BACK_OFF_S = 2.0  # after a worker that did not come up; doubled with each
_LONGEST_BACK_OFF_S = 60.0
_MARGIN_S = 1.0  # before its node goes, a unit that is not done is given to another worker
_ASKED_TOGETHER = 200  # places; each takes Ray's head about a millisecond, in which no result is taken
_FEW = 1000  # for every so many workers one more result is waited for: a look at all of them costs milliseconds
_NAMED = 5  # slow workers in the log, each half a second
_LOGS = 100  # looked at every half a second: on other nodes each takes a task
_BROKEN_AFTER = 2  # units that fail in a row on a worker: its process may be spoilt, e.g. its CUDA context


class Crew:
    """Does the units of a task.

    Args:
        task: what is done.
        places: where workers may start.
        emit: the job's journal.
        meter: how much the workers do.
    """

    def __init__(self, task: Task, places: Places, emit: Emit, meter: Meter) -> None:
        self._task, self._places, self._emit, self._meter = task, places, emit, meter
        self._waiting = deque(range(len(task.units)))
        self._left = len(task.units)
        self._slots: list[Slot] = []
        self._losses: defaultdict[int, list[str]] = defaultdict(list)  # unit -> nodes where its worker was lost
        self._failed_on: defaultdict[int, list[Seat]] = defaultdict(list)  # unit -> where it failed
        self._renewed: defaultdict[Seat, int] = defaultdict(int)  # how often without a unit done since
        self._false_starts: defaultdict[int, list[str]] = defaultdict(list)  # as losses, of those that did not load
        self._has_loaded = False  # any worker ever
        self._pace = Pace()
        self._not_before = 0.0
        self._looked = 0.0
        self._next_log = 0
        self._slow: list[str] = []  # what is to be said of calls that take long
        self._share: int | None = None
        self._queue, self._loaded = Level("queue_length"), Level("workers")

    def run(self) -> Iterator[Outcome]:
        """Yields (index, result) as units end."""
        import ray

        # waits: as long as there are units; places.check, _check_start and _check_stall end it with a message
        while self._left:
            self._hand_out(self._slots)
            patience = 0.0 if self._enlist() else PULL_S
            calls = {slot.call: slot for slot in self._slots if slot.call is not None}
            references = list(calls)
            if calls:
                ray.wait(references, num_returns=1 + len(calls) // _FEW, timeout=patience)
            else:
                time.sleep(_IDLE_S)
            for call in ray.wait(references, num_returns=len(calls), timeout=0)[0] if calls else ():
                slot = calls[call]
                yield from self._counted(self._ended(slot), [slot])
            yield from self._counted(self._look_around(), self._slots)

    def end(self) -> None:
        """Ends the actors; the last words of each are in the logs."""
        self._measure()
        while self._slots:
            self._dismiss(self._slots[-1])
        self._queue.set(0)
        self._loaded.set(0)

    def _counted(self, outcomes: Sequence[Outcome], free: Sequence[Slot]) -> Iterator[Outcome]:
        self._left -= len(outcomes)
        if outcomes:
            self._hand_out(free)  # before whoever takes the result has had a look at it
        yield from outcomes

    def _look_around(self) -> list[Outcome]:
        """What is due every half a second: logs, nodes that go, workers that do not come up or hang.

        Returns units on which workers hung too often.
        """
        if time.monotonic() < self._looked + PULL_S:
            return []
        self._looked = time.monotonic()
        self._leave_nodes()
        self._look_at_share()
        self._copy_logs()
        outcomes: list[Outcome] = []
        for slot in list(self._slots):
            if slot.follower:
                outcomes += self._check_stall(slot)
            elif slot.actor is not None:
                self._check_start(slot)
        self._tell_of_slow()
        self._places.check(any(slot.actor is not None for slot in self._slots))
        self._meter.tick(self._begun())
        self._measure()
        return outcomes

    def _copy_logs(self) -> None:
        """Copies what is new in the logs of some workers: of all of them in turn."""
        followers = [slot.follower for slot in self._slots if slot.follower]
        for follower in followers[self._next_log : self._next_log + _LOGS]:
            follower.pull()
        self._next_log = self._next_log + _LOGS if self._next_log + _LOGS < len(followers) else 0

    def _begun(self) -> list[float]:
        return [slot.began for slot in self._slots if slot.unit is not None]

    def _measure(self) -> None:
        self._queue.set(len(self._waiting))
        self._loaded.set(sum(slot.loaded for slot in self._slots))
        if self._task.has_gpu:
            count("gpu_wait_seconds", self._meter.waited(self._begun()))

    def _check_start(self, slot: Slot) -> None:
        if not self._places.stands(slot.place):
            self._remove(slot)  # its node went before it came up
        elif time.monotonic() > slot.began + START_S:
            reason = f"a worker did not start within {START_S:g} s"
            if not self._places.elastic:
                raise JobFailed(reason)
            self._lost_at_start(slot, JobFailed(reason))

    def _check_stall(self, slot: Slot) -> list[Outcome]:
        """Says once that a call takes long; after the time that is given its worker counts as lost."""
        import ray

        seconds, limit = time.monotonic() - slot.began, self._task.stall_timeout_s
        kind, what = ("unit", f"unit {slot.unit}") if slot.loaded else ("load", "loading")
        stalls = limit is not None and seconds > limit
        how = "" if slot.noticed else self._pace.slow(kind, seconds)
        if slot.call is None or not (stalls or how) or ray.wait([slot.call], timeout=0)[0]:
            return []  # all is well, or it has ended, and whoever takes the results was slow
        if stalls:
            stalled = WorkerLost(f"{what} took longer than stall_timeout_s, {limit:g} s")
            return self._lost(slot, stalled, stalled)
        if how:
            slot.noticed = True
            self._slow.append(f"{what} on worker {slot.place.number} {how}")
        return []

    def _tell_of_slow(self) -> None:
        """Thousands of workers may become slow at the same time, as storage does: some of them are named."""
        for text in self._slow[:_NAMED]:
            logger.warning("job %s: %s", self._task.job.id, text)
        if len(self._slow) > _NAMED:
            logger.warning("job %s: so it is on %d other workers", self._task.job.id, len(self._slow) - _NAMED)
        self._slow.clear()

    # Workers come and go

    def _enlist(self) -> bool:
        """Asks for workers, as many as are wanted and have something to do, for those that leave too.

        Returns whether there are more to ask for, at once.
        """
        staying = [slot for slot in self._slots if not slot.leaving]
        working = sum(slot.unit is not None for slot in staying)
        holding = staying if self._places.elastic else self._slots  # a bundle of a fixed group is free when they left
        missing = min(self._places.wanted(), working + len(self._waiting)) - len(holding)
        for slot in [slot for slot in reversed(staying) if slot.actor is None][: max(-missing, 0)]:
            self._remove(slot)
        if missing <= 0 or time.monotonic() < self._not_before:
            return False
        for _ in range(min(missing, _ASKED_TOGETHER)):
            place = self._places.take()
            slot = Slot(place, place.ready)
            self._slots.append(slot)
            if slot.call is None:
                self._start(slot)
        return missing > _ASKED_TOGETHER

    def _leave_nodes(self) -> None:
        """Gives back what is on nodes that are about to go; a unit that there is time for is finished first."""
        import ray

        going = draining_nodes()
        if not going:
            return
        for slot in [slot for slot in self._slots if slot.actor is not None]:
            node = slot.address.node_id if slot.address else self._places.node_of(slot.place)
            if node is None or node not in going or (slot.call is not None and ray.wait([slot.call], timeout=0)[0]):
                continue
            if not slot.leaving:
                slot.leaving = True
                seconds = None if going[node] == math.inf else round(going[node], 1)
                logger.warning("job %s: the node of worker %d is drained", self._task.job.id, slot.place.number)
                self._tell("worker_draining", slot, unit=slot.unit, seconds_left=seconds)
            if slot.unit is None:
                self._dismiss(slot)
            elif self._pace.left("unit", time.monotonic() - slot.began) > going[node] - _MARGIN_S:
                self._waiting.appendleft(slot.unit)
                self._dismiss(slot, unit=slot.unit, reason="its node goes before the unit is done")

    def _look_at_share(self) -> None:
        """Tells when others on the cluster want their share, and when they no longer do."""
        share = self._places.share()
        if share != self._share:
            self._share = share
            self._emit("fair_share", workers=share)

    def _above_share(self) -> bool:
        """Whether others on the cluster should have the place of a worker."""
        if self._share is None:
            return False
        return sum(slot.actor is not None and not slot.leaving for slot in self._slots) > max(self._share, 1)

    def _start(self, slot: Slot) -> None:
        slot.actor = start_actor(UnitActor, self._task.job, slot.place.group, slot.place.bundle, self._task.python)
        slot.calls(slot.actor.start.remote())

    def _came_up(self, slot: Slot, address: WorkerAddress) -> None:
        slot.address = address
        slot.follower = LogFollower(address, self._task.log, slot.place.number)
        slot.calls(slot.actor.load.remote(self._task.work, self._task.has_gpu))
        self._tell("worker_started", slot)

    def _dismiss(self, slot: Slot, **why: Any) -> None:
        """Ends a worker that is to do nothing more."""
        self._remove(slot, last_words=True)
        if slot.address:
            self._tell("worker_ended", slot, **why)

    def _remove(self, slot: Slot, *, last_words: bool = False) -> None:
        """Ends the actor, if there is one, and frees its place."""
        import ray

        self._slots.remove(slot)
        if slot.actor is not None:
            ray.kill(slot.actor)
        if slot.follower:
            slot.follower.pull(last=last_words)
            slot.follower.close(wait=last_words)
        if slot.loaded:
            self._meter.left()
        slot.loaded = False  # nothing is handed to it any more
        self._places.give_back(slot.place)

    def _tell(self, event: str, slot: Slot, **more: Any) -> None:
        address = slot.address
        where = where_is(address) if address else {"node": None, "pid": None, "actor": None}
        self._emit(event, worker=slot.place.number, **where, **more)

    # Units

    def _hand_out(self, to: Sequence[Slot]) -> None:
        """Gives a unit to each of these workers that has none; ends those for which there will be none."""
        for slot in [slot for slot in to if slot.loaded and slot.unit is None]:
            if slot.leaving or self._above_share():
                self._dismiss(slot, reason="its node goes" if slot.leaving else "others want their share")
                continue
            unit = self._next_for(slot)
            if unit is not None:
                self._waiting.remove(unit)
                slot.unit = unit
                slot.calls(slot.actor.run.remote(self._task.units[unit]))
            elif self._places.elastic and not self._waiting:
                self._dismiss(slot)

    def _next_for(self, slot: Slot) -> int | None:
        """The first unit that has not failed on this worker, or on all others too, those that are coming up as well.

        One that takes long to load is not waited for.
        """
        others: list[Seat] | None = None
        for unit in self._waiting:
            failed = self._failed_on.get(unit, ())
            if slot.seat not in failed:
                return unit
            if others is None:
                others = [other.seat for other in self._slots if other.loaded or (other.actor and not other.noticed)]
            if all(other in failed for other in others):
                return unit
        return None

    def _ended(self, slot: Slot) -> list[Outcome]:
        """Takes what a call returned; returns the unit and its result when that was the last of it."""
        import ray
        from ray.exceptions import RayError

        call, slot.call = slot.call, None
        try:
            result: Any = ray.get(call, timeout=START_S)  # it is ready; only its way here may take
        except RayError as error:
            return self._went_wrong(slot, error)
        if slot.actor is None:
            self._start(slot)
        elif slot.address is None:
            self._came_up(slot, result)
        elif not slot.loaded:
            slot.loaded = self._has_loaded = True
            self._pace.ended("load", time.monotonic() - slot.began)
            self._false_starts.pop(slot.place.number, None)
            self._meter.joined()
        else:
            unit, slot.unit, slot.failures = slot.unit, None, 0
            self._renewed.pop(slot.seat, None)
            value, seconds, utilization = result
            self._pace.ended("unit", seconds)
            self._meter.did(seconds, utilization)
            count("units_done")
            observe("unit_seconds", seconds)
            return [(unit, value)]  # type: ignore[list-item]  # a call of `run` has a unit
        return []

    def _went_wrong(self, slot: Slot, error: Exception) -> list[Outcome]:
        """Tries again elsewhere what a worker failed at or was lost with; returns what is not tried again."""
        log = log_of(self._task.log, slot.place.number)
        reason = failure(error, "", log)
        if isinstance(reason, WorkerLost):
            return self._lost(slot, reason, error)
        if slot.unit is None and self._goes_on_without(slot):
            text = str(reason).splitlines()[0]
            logger.warning("job %s: a worker did not come up: %s", self._task.job.id, text)
            self._tell("worker_lost", slot, unit=None, reason=text)
            self._lost_at_start(slot, error)
            return []
        if slot.unit is None or self._task.tries is None:
            raise self._with_last_words(slot, error) from error
        return self._failed(slot, slot.unit, reason)

    def _goes_on_without(self, slot: Slot) -> bool:
        """Whether what keeps a worker from coming up may be its own: others did, or are about to."""
        others = self._has_loaded or any(other.actor is not None for other in self._slots if other is not slot)
        return self._places.elastic and self._task.tries is not None and others

    def _failed(self, slot: Slot, unit: int, reason: Exception) -> list[Outcome]:
        """A unit raised: another worker tries it next, or a fresh process where this one may be spoilt."""
        slot.unit = None
        slot.failures += 1
        count("units_lost")
        failed = self._failed_on[unit]
        failed.append(slot.seat)
        if slot.failures >= _BROKEN_AFTER and self._renewed[slot.seat] < LOST_TRIES:
            self._renewed[slot.seat] += 1
            text = "job %s: %d units in a row failed on worker %d, which is replaced"
            logger.warning(text, self._task.job.id, slot.failures, slot.place.number)
            self._dismiss(slot)
        if len(failed) >= (self._task.tries or 1):
            return [(unit, UnitFailed(str(reason)))]
        logger.warning("job %s: unit %d is tried again: %s", self._task.job.id, unit, str(reason).splitlines()[0])
        self._waiting.appendleft(unit)
        return []

    def _lost(self, slot: Slot, reason: WorkerLost, error: Exception) -> list[Outcome]:
        logger.warning("job %s lost a worker: %s", self._task.job.id, str(reason).splitlines()[0])
        unit = slot.unit
        count("units_lost", unit is not None)
        self._tell("worker_lost", slot, unit=unit, reason=str(reason).splitlines()[0])
        if unit is None:
            self._lost_at_start(slot, error)
            return []
        times = self._count(self._losses[unit], slot)
        if times <= LOST_TRIES:
            self._remove_lost(slot)
            self._waiting.appendleft(unit)
            return []
        text = f"the worker died {times} times on unit {unit}"
        if self._task.tries is None:
            raise JobFailed(f"{text}: {self._with_last_words(slot, error)}") from error
        self._remove_lost(slot)
        return [(unit, UnitFailed(f"{text}: {reason}"))]

    def _lost_at_start(self, slot: Slot, error: Exception) -> None:
        """Another one is tried, a few times; where places come and go, later and later while others work."""
        times = self._count(self._false_starts[slot.place.number], slot)
        if times > LOST_TRIES and not (self._places.elastic and any(other.loaded for other in self._slots)):
            reason = self._with_last_words(slot, error)
            raise JobFailed(f"{times} workers did not come up, the last: {reason}") from error
        self._remove_lost(slot)
        if self._places.elastic and times:
            self._not_before = time.monotonic() + min(_BACK_OFF_S * 2 ** (times - 1), _LONGEST_BACK_OFF_S)

    def _remove_lost(self, slot: Slot) -> None:
        """Ends what is left of a worker; its last words are there as long as its node lives."""
        node = nodes_by_id().get(slot.address.node_id) if slot.address else None
        self._remove(slot, last_words=node is not None and node["Alive"])

    def _count(self, losses: list[str], slot: Slot) -> int:
        """Notes a lost worker; returns how many were lost on nodes that stay: a lost node is nobody's fault."""
        losses.append(slot.address.node_id if slot.address else "")
        nodes = nodes_by_id()
        losses[:] = [node for node in losses if not is_going(node, nodes)]
        return len(losses)

    def _with_last_words(self, slot: Slot, error: Exception) -> Exception:
        """The error with the last lines of the worker's log."""
        if slot.follower:
            slot.follower.pull(last=True)
        tail = slot.follower.tail if slot.follower else ""
        return failure(error, tail, log_of(self._task.log, slot.place.number))
