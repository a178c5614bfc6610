"""Doing jobs at the same time: each when those before it have ended and what it needs is there.

The main thread decides and writes down; the work is done in threads. Only one thread at a time prepares
jobs, since that looks at what all jobs so far have made. Nothing here knows what a job is.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from raysandbox.core.errors import JobFailed, UserError
from raysandbox.core.scope import Scope, working_in
from raysandbox.runtime.interrupts import WorkThread
from raysandbox.runtime.main_thread import MainCall, serving
from raysandbox.sandbox.admission import Demand

__all__ = ["MOST_AT_ONCE", "Piece", "Schedule", "Turn"]

MOST_AT_ONCE = 64  # threads; each looks at its actors twice a second
_LOOK_S = 0.5
_CLUSTER_S = 5.0  # after which it is looked again whether what waits fits: the cluster may have grown
_MOST_OVERTAKE = 16  # pieces that may start before an earlier one that waits for room; then room is kept for it
_PATIENCE_S = 20.0  # with threads that are to end

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """Work that one thread does.

    Attributes:
        name: for people.
        demand: what it holds meanwhile.
        work: what to do.
    """

    name: str
    demand: Demand
    work: Callable[[], Any]


class Turn(Protocol):
    """A job that comes to its turn. `prepare` is called in a thread, all else in the main one."""

    def begin(self) -> None:
        """Those before it have ended."""
        ...

    def prepare(self) -> Sequence[Piece]:
        """Its work; one piece after the other would do."""
        ...

    def end(self, results: Sequence[Any]) -> None:
        """All pieces have ended well; their results, in their order."""
        ...

    def fail(self, error: UserError) -> None:
        """One of its pieces, or `prepare`, raised."""
        ...

    def give_up(self) -> None:
        """It was ended for another one's sake, and can go on another time."""
        ...


@dataclass(eq=False)
class _Job:
    """A turn with how far it is."""

    number: int
    turn: Turn
    before: set[int]
    begun: bool = False
    left: int = -1  # pieces; -1 while they are not known
    results: list[Any] = field(default_factory=list)
    ended: bool = False
    failed: bool = False


@dataclass(eq=False)
class _Work:
    """A piece of a job; `index` is None where the job is prepared."""

    job: _Job
    index: int | None
    piece: Piece

    @property
    def order(self) -> tuple[int, int]:
        """Where it comes in the order in which one after the other would do."""
        return self.job.number, self.index or 0


@dataclass(eq=False)
class _Queue:
    """Pieces of one job that wait, all with the same demand.

    Attributes:
        overtaken: how many later pieces have started while there was no room for these.
    """

    demand: Demand
    works: deque[_Work] = field(default_factory=deque)
    overtaken: int = 0


class Schedule:
    """Does turns.

    Args:
        turns: in the order in which one after the other would do.
        after: for each the positions of those that must have ended, all smaller than its own.
        fit: whether demands fit beside each other; a single one is never asked about.
        most: pieces at once.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        after: Sequence[Sequence[int]],
        fit: Callable[[Sequence[Demand]], bool],
        most: int = MOST_AT_ONCE,
    ) -> None:
        self._jobs = [_Job(number, turn, set(after[number])) for number, turn in enumerate(turns)]
        self._fit, self._most = fit, most
        self._events: queue.SimpleQueue[WorkThread | MainCall] = queue.SimpleQueue()
        self._to_prepare: list[_Job] = []
        self._waiting: list[_Queue] = []  # none is empty; in the order of their first pieces
        self._running: dict[WorkThread, _Work] = {}
        self._errors: list[UserError] = []
        self._looked = 0.0

    def run(self) -> None:
        """Returns when all have ended.

        Raises:
            JobFailed: what the first one that failed raised, as it was raised; or one that names several.
            KeyboardInterrupt: as a signal's handler raised it; all work has ended.
        """
        try:
            with serving(self._events.put):
                self._loop()
        except BaseException:
            self._give_up()
            raise
        if self._errors:
            self._give_up()
            raise _joined(self._errors)

    def _loop(self) -> None:
        while not self._errors and not all(job.ended for job in self._jobs):
            self._begin()
            if self._admit():
                self._looked = time.monotonic()
            for thread in self._next_ended():
                self._take(thread)
                self._looked = 0.0  # there is room now

    def _begin(self) -> None:
        """Jobs whose turn has come; the first of them is prepared."""
        for job in self._jobs:
            if not job.begun and not job.before:
                job.begun = True
                job.turn.begin()
                self._to_prepare.append(job)
        if self._to_prepare and all(work.index is not None for work in self._running.values()):
            job = self._to_prepare.pop(0)
            self._start(_Work(job, None, Piece(f"preparation of job {job.number}", Demand(), job.turn.prepare)))

    def _admit(self) -> bool:
        """Starts what fits beside what runs, in order; returns whether all was looked at."""
        if not self._waiting or time.monotonic() < self._looked + _CLUSTER_S:
            return False
        held = {work.order: work.piece.demand for work in self._running.values() if work.index is not None}
        refused: list[_Queue] = []
        kept: _Queue | None = None  # the earliest that room is kept for
        for waiting in self._waiting:
            while waiting.works and len(held) < self._most and self._has_room(waiting, held, refused, kept):
                work = waiting.works.popleft()
                held[work.order] = waiting.demand
                self._start(work)
                if waiting.demand != Demand():
                    for other in refused:
                        other.overtaken += 1
            if len(held) >= self._most:
                break
            if waiting.works:
                refused.append(waiting)
                if kept is None and waiting.overtaken >= _MOST_OVERTAKE and self._fit([waiting.demand]):
                    kept = waiting
        self._waiting = [waiting for waiting in self._waiting if waiting.works]
        return True

    def _has_room(
        self, waiting: _Queue, held: Mapping[tuple[int, int], Demand], refused: Sequence[_Queue], kept: _Queue | None
    ) -> bool:
        """Whether a queue's first piece may start, beside what runs and without delaying what room is kept for."""
        demand = waiting.demand
        if not held or demand == Demand():
            return True
        if any(demand == other.demand for other in refused) or not self._fit([*held.values(), demand]):
            return False
        if kept is None:
            return True
        overtakers = [other for order, other in held.items() if order > kept.works[0].order]
        return self._fit([kept.demand, *overtakers, demand])

    def _start(self, work: _Work) -> None:
        def scoped() -> Any:
            with working_in(Scope(work.piece.name)):
                return work.piece.work()

        thread = WorkThread(scoped, self._events.put, work.piece.name)
        self._running[thread] = work
        thread.start()

    def _next_ended(self) -> list[WorkThread]:
        """Threads that have ended; makes the calls that others wait for."""
        try:
            event = self._events.get(timeout=_LOOK_S)
        except queue.Empty:
            return [thread for thread in self._running if thread.ended]
        if isinstance(event, MainCall):
            event.make()
            return []
        return [event]

    def _take(self, thread: WorkThread) -> None:
        """Takes what a thread ended with.

        Raises:
            BaseException: what it raised, where that is no user's error.
        """
        work = self._running.pop(thread, None)
        if work is None:
            return
        job, error = work.job, thread.error
        try:
            if error is not None:
                raise error
            if work.index is None:
                self._prepared(job, thread.value)
            else:
                job.results[work.index] = thread.value
                job.left -= 1
            if job.left == 0:
                self._end(job)
        except UserError as failure:
            self._errors.append(failure)
            job.failed = True
            job.turn.fail(failure)

    def _prepared(self, job: _Job, pieces: Sequence[Piece]) -> None:
        job.left, job.results = len(pieces), [None] * len(pieces)
        queues: list[_Queue] = []
        for index, piece in enumerate(pieces):
            alike = next((each for each in queues if each.demand == piece.demand), None)
            if alike is None:
                queues.append(alike := _Queue(piece.demand))
            alike.works.append(_Work(job, index, piece))
        self._waiting = sorted([*self._waiting, *queues], key=lambda waiting: waiting.works[0].order)

    def _end(self, job: _Job) -> None:
        job.turn.end(job.results)
        job.ended = True
        for other in self._jobs:
            other.before.discard(job.number)

    def _give_up(self) -> None:
        """Ends what runs; what ended well meanwhile counts, and what failed is named too."""
        for thread in self._running:
            thread.stop()
        end = time.monotonic() + _PATIENCE_S
        interrupted: dict[int, _Job] = {}
        while self._running and time.monotonic() < end:
            for thread in [thread for thread in self._next_ended() if thread in self._running]:
                work = self._running[thread]
                if thread.error is None or isinstance(thread.error, UserError):
                    self._take(thread)
                else:
                    del self._running[thread]
                    interrupted[work.job.number] = work.job
        for work in self._running.values():
            logger.warning("%s did not end within %.0f s and is left behind", work.piece.name, _PATIENCE_S)
            interrupted[work.job.number] = work.job
        self._running.clear()
        for _, job in sorted(interrupted.items()):
            if not job.failed:
                job.turn.give_up()


def _joined(errors: Sequence[UserError]) -> UserError:
    """One error for all that failed at about the same time."""
    if len(errors) == 1:
        return errors[0]
    error = JobFailed("\n".join(map(str, errors)))
    error.__cause__ = errors[0]
    return error
