"""Work on a Ray whose memory monitor ends every task: a program of its own, which prints how it ended."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from raysandbox.core.errors import JobFailed
from raysandbox.ops.base import OpResources
from raysandbox.recipe.parts import InMemory, Unit, UnitReport
from raysandbox.recipe.ray_data import RayDataEngine


@dataclass(frozen=True)
class Greedy:
    """Work that never ends by itself."""

    staging: Path
    resources: tuple[OpResources, ...] = ()

    def run(self, unit: Unit) -> UnitReport:
        time.sleep(600)
        return UnitReport(unit.index, [], [])


def main(folder: str) -> None:
    import ray

    settings = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 100}
    os.environ.setdefault("RAY_task_oom_retries", "3")  # as ensure_ray does
    ray.init(
        address="local",
        num_cpus=2,
        log_to_driver=False,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _system_config=settings,
    )
    try:
        list(RayDataEngine().run(Greedy(Path(folder)), [Unit(0, InMemory([{"text": "x"}]))]))
    except JobFailed as error:
        print(error)


if __name__ == "__main__":
    main(sys.argv[1])
