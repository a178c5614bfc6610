"""A driver for test_draining: a training that leaves the node that is drained; prints where it was."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from raysandbox.core.errors import WorkerLeaves
from raysandbox.executors.base import ModelTrainer
from raysandbox.runtime.placement import Resources, placement_group_for
from raysandbox.runtime.session import ensure_ray
from raysandbox.runtime.workers import run_in_worker
from tests.runtime.elastic_driver import Job, tell

LEAST_S = 180.0  # a drained node is told of within, on a busy machine


class Trainer(ModelTrainer):
    """Waits to be told to leave; where it is begun again it is done."""

    distributed = True
    folder: str

    def train(self, session):
        import ray

        if (mark := Path(self.folder, f"begun-{session.rank}")).exists():
            return str(ray.util.get_node_ip_address())
        mark.write_text(str(ray.util.get_node_ip_address()))
        end = time.monotonic() + LEAST_S
        while not self._told(session):
            assert time.monotonic() < end
            time.sleep(0.1)
        raise WorkerLeaves("goes on after step 7")

    def _told(self, session):
        if session.world_size == 1:
            return session.must_leave()
        import torch

        told = torch.tensor(float(session.must_leave()))
        torch.distributed.all_reduce(told)
        return bool(told.item())


class Silent:
    """No watcher."""

    def __call__(self, metrics, step=None):
        pass

    @property
    def client(self):
        return self

    def flush(self):
        pass


@dataclass(frozen=True)
class Context:
    log: Path
    report: Silent

    def emit(self, event: str, **fields: object) -> None:
        """Events go nowhere."""


def main(folder: Path, workers: int) -> None:
    """Trains where the head's last GPU is taken until the training has begun."""
    ensure_ray()
    import ray

    head = ray.get_runtime_context().get_node_id()
    on_head = placement_group_for(Resources(num_gpus=1, num_cpus=0.1, label_selector={"ray.io/node-id": head}))
    on_head.__enter__()

    def free() -> None:
        while not (folder / "begun-0").exists():
            time.sleep(0.05)
        on_head.__exit__(None, None, None)
        tell("begun")

    threading.Thread(target=free).start()
    job = Job(Resources(num_gpus=1, num_cpus=0.1, num_workers=workers))
    where = run_in_worker(Trainer(folder=str(folder)), job, Context(folder / "train.log", Silent()))
    groups = [group["state"] for group in ray.util.placement_group_table().values()]
    tell("end", where=where, groups=groups)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
