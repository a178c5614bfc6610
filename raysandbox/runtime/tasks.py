"""Functions as Ray tasks, here or on a given node."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["call_on", "task"]


@functools.cache
def task(function: Callable[..., Any]) -> Any:
    """A function of a module as a Ray task.

    It is made once: Ray's head keeps a copy of the function, for good, each time that one is made.
    """
    import ray

    return ray.remote(function)


def call_on(node_id: str, function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function in a task on a node; returns the reference of its result."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return task(function).options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(*args)
