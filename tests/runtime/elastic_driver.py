"""A driver on raylets: units over workers that come and go; tells what happens, a JSON object a line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysandbox.core.progress import Progress
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.session import ensure_ray
from raysandbox.runtime.unit_workers import JobWorkers


@dataclass(frozen=True)
class Job:
    resources: Resources
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    id: str = "anonymous.infer#0"


@dataclass(frozen=True)
class Sleep:
    """Sleeps, unless there is no time to, and says where; each unit that is done leaves a line in a file."""

    folder: Path

    def load(self, device):
        import ray

        return ray.util.get_node_ip_address()

    def run(self, unit, state):
        if (self.folder / f"crash-{state}").exists():
            (self.folder / f"crash-{state}").unlink()
            print("WHY: a bad day")
            os._exit(1)
        if not (self.folder / "hurry").exists():
            time.sleep(unit)
        with (self.folder / f"runs-{os.getpid()}").open("a") as file:
            file.write("run\n")
        return state


def tell(event: str, **fields: Any) -> None:
    """Prints an event."""
    print(json.dumps({"event": event, **fields}), flush=True)


def main(folder: Path, count: int, seconds: float) -> None:
    """Does `count` units of `seconds` on every GPU of the cluster in RAY_ADDRESS."""
    ensure_ray()
    workers = JobWorkers(
        Job(Resources(num_cpus=0.5)),
        folder / "job.log",
        Progress(),
        tell,
        lambda metrics, step=None: tell("metrics", **metrics),
    )
    for index, node in workers.map(Sleep(folder), [seconds] * count, elastic=True):
        tell("unit", index=index, node=node)
    import ray

    groups = [group["state"] for group in ray.util.placement_group_table().values()]
    tell("end", groups=groups)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
