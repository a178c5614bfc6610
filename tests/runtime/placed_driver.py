"""A driver on raylets: prints on which nodes workers lie that ask for this or that."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from raysandbox.core.progress import Progress
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.placement import Resources
from raysandbox.runtime.session import ensure_ray
from raysandbox.runtime.unit_workers import JobWorkers
from raysandbox.runtime.workers import run_in_worker
from tests.runtime.drained_driver import Context, Silent
from tests.runtime.elastic_driver import Job

LEAST_S = 180.0


class Trainer(ModelTrainer):
    """Says where it is."""

    def train(self, session):
        import ray

        return str(ray.util.get_node_ip_address())


class Where:
    """Says where it is once as many workers as there are units do so."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number

    def load(self, device):
        import ray

        return str(ray.util.get_node_ip_address())

    def run(self, unit, state):
        (self._folder / str(unit)).touch()
        end = time.monotonic() + LEAST_S
        while len(list(self._folder.iterdir())) < self._number:
            assert time.monotonic() < end
            time.sleep(0.02)
        return state


def main(folder: Path) -> None:
    """Asks in all ways."""
    ensure_ray()
    found: dict[str, list[str]] = {}

    def units(name: str, number: int = 1, *, elastic: bool = False, **resources: Any) -> None:
        meeting = folder / f"meeting {len(found)}"
        meeting.mkdir()
        asked = Job(Resources(num_cpus=0.1, num_workers=number, **resources))
        workers = JobWorkers(asked, folder / "job.log", Progress())
        nodes = dict(workers.map(Where(meeting, number), range(number), elastic=elastic)).values()
        found[name] = sorted(set(nodes))

    def training(name: str, **resources: Any) -> None:
        context = Context(folder / "train.log", Silent())
        found[name] = [run_in_worker(Trainer(), Job(Resources(num_cpus=0.1, **resources)), context)]

    asked: dict[str, dict[str, Any]] = {
        "accelerator": {"num_gpus": 1, "accelerator_type": "A100"},
        "label": {"label_selector": {"market": "spot"}, "num_gpus": 0},
        "other label": {"label_selector": {"market": "!spot"}, "num_gpus": 0},
    }
    for name, resources in asked.items():
        units(f"elastic: {name}", elastic=True, **resources)
        units(f"fixed: {name}", **resources)
        training(f"training: {name}", **resources)
    units("fixed: SPREAD", 3, strategy="SPREAD", num_gpus=0)
    units("fixed: PACK", 3, strategy="PACK", num_gpus=0)
    units("fixed: halves", 2, num_gpus=0.5)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
