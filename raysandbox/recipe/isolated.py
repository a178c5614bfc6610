"""Units one by one in tasks of their own, after workers died: what is harmless is done, what kills is named."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from raysandbox.core.errors import JobFailed
from raysandbox.recipe.inputs import ReadTask
from raysandbox.recipe.parts import Unit

__all__ = ["WorkersDied", "died", "one_by_one"]

_TRIES = 3  # of a unit whose worker dies
_NODES = 10  # that may go away under one unit
_WAIT_S = 5.0
_FILES = 3  # in a message


class WorkersDied(JobFailed):
    """A unit's worker died every time."""


def died(error: BaseException) -> bool:
    """Whether an error of Ray says that a process died, was ended for its memory, or went with its node."""
    from ray import exceptions as ray_errors

    # RayActorError: an actor whose node is gone is "unavailable" until Ray has declared the node dead, and
    # by then it may have used up its retries. ObjectLostError: the result went with the node.
    kinds = (ray_errors.WorkerCrashedError, ray_errors.RayActorError, ray_errors.NodeDiedError)
    others = (ray_errors.OutOfMemoryError, ray_errors.LocalRayletDiedError, ray_errors.ObjectLostError)
    return isinstance(error, (*kinds, *others))


def one_by_one(
    units: Sequence[Unit], do: Callable[[Unit], Any], at_once: int, options: Mapping[str, Any]
) -> Generator[pa.Table]:
    """Does units, each in a task that shares its process with no other; yields their results in order.

    What is still going on when it is closed, or when a unit fails, is ended.

    Args:
        units: what is left.
        do: makes the arguments of a unit's task: function and its arguments.
        at_once: how many at a time.
        options: of the tasks, their CPUs and so on.

    Raises:
        WorkersDied: a unit's worker died every time; it names the unit and its file.
    """
    import ray

    from raysandbox.runtime.tasks import task

    def start(unit: Unit) -> Any:
        function, *arguments = do(unit)
        return task(function).options(**options, max_retries=0).remote(*arguments)

    waiting, running = deque(units), deque[_Attempt]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                unit = waiting.popleft()
                running.append(_Attempt(unit, start(unit)))
            block = _outcome(running[0], start)
            running.popleft()
            yield block
    finally:
        for attempt in running:  # Ray would go on with what nobody waits for
            ray.cancel(attempt.call, force=True)


@dataclass
class _Attempt:
    """A unit and the task that does it now."""

    unit: Unit
    call: Any


def _outcome(attempt: _Attempt, start: Callable[[Unit], Any]) -> pa.Table:
    """The result of a unit, which is begun again where its worker dies, a few times."""
    import ray
    from ray.exceptions import NodeDiedError, RayError

    deaths, nodes = 0, 0
    while True:
        # waits: a unit takes as long as it takes; timeout_s and signals end it
        while not ray.wait([attempt.call], timeout=_WAIT_S)[0]:
            pass
        try:
            return cast(pa.Table, ray.get(attempt.call))  # waits: no more, ray.wait has it here
        except RayError as error:
            if not died(error):
                raise
            nodes += isinstance(error, NodeDiedError)
            deaths += not isinstance(error, NodeDiedError)
            if deaths >= _TRIES or nodes >= _NODES:
                raise WorkersDied(_message(attempt.unit, deaths or nodes, error)) from error
        attempt.call = start(attempt.unit)


def _message(unit: Unit, times: int, error: Exception) -> str:
    from ray.exceptions import OutOfMemoryError

    if isinstance(error, OutOfMemoryError):
        reason, fix = (
            "it ran out of memory and Ray ended it",
            "set a smaller np, or cut very long rows out of the input",
        )
    else:
        reason = str(error).strip().splitlines()[0]
        fix = "a row there or a library that reads it ends the process: find it by processing parts of the file"
    return f"a worker died {times} times on unit {unit.index} ({_where(unit)}): {reason} ({fix})"


def _where(unit: Unit) -> str:
    """The files of a unit, with the part of each that it reads."""
    if not isinstance(unit.source, ReadTask):
        return "rows that an earlier part of the recipe left"
    shown = [
        f"{span.file.path}, {span.start} to {'its end' if span.end is None else span.end}"
        for span in unit.source.spans[:_FILES]
    ]
    return "; ".join(shown) + (" …" if len(unit.source.spans) > _FILES else "")
