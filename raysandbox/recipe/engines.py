"""Where units run: in this process, or as tasks on Ray. Both give the same results in the same order.

Plain tasks rather than Ray Data: a unit already reads, transforms and writes its own rows, so
nothing travels between stages, and a job does not pay for Ray Data's executor and its actors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

__all__ = ["Engine", "LocalEngine", "RayEngine", "engine_named"]

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2  # tasks submitted per CPU: the next one waits where the last one ends
_TASK_RETRIES = 3  # of a task whose worker or node died


class Engine(Protocol):
    """Applies a function to many items."""

    name: str

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yields the results in the order of the items."""
        ...


class LocalEngine:
    """One item after the other, in this process."""

    name = "local"

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yields the results in the order of the items."""
        return map(function, items)


class RayEngine:
    """Tasks of one CPU each on the cluster, a bounded number of them in flight.

    Args:
        most: tasks at once; by default two per CPU of the cluster.
    """

    name = "ray"

    def __init__(self, most: int | None = None) -> None:
        self._most = most

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yields the results in the order of the items.

        Raises:
            Exception: what the function raised, as it raised it.
        """
        from raysandbox.runtime.session import ensure_ray

        ensure_ray()
        import ray
        from ray.exceptions import RayTaskError

        most = self._most or max(1, int(_AHEAD * ray.cluster_resources().get("CPU", 1)))
        shared = ray.put(function)
        task = ray.remote(_call).options(num_cpus=1, max_retries=_TASK_RETRIES)
        waiting: deque[Any] = deque()
        todo = iter(items)
        try:
            while True:
                while len(waiting) < most and (item := next(todo, None)) is not None:
                    waiting.append(task.remote(shared, item))
                if not waiting:
                    return
                try:
                    yield ray.get(waiting.popleft())
                except RayTaskError as error:
                    raise error.cause from None
        finally:
            for reference in waiting:
                ray.cancel(reference)


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)


def engine_named(name: str, most: int | None = None) -> Engine:
    """The engine "local" or "ray"."""
    return RayEngine(most) if name == "ray" else LocalEngine()
