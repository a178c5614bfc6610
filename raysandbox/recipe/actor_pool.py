"""How many workers with models a cluster holds, and of what size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysandbox.core.errors import UserError
from raysandbox.ops.base import OpResources
from raysandbox.runtime.placement import how_many
from raysandbox.runtime.session import Cluster

__all__ = ["Pool", "pool_for"]


@dataclass(frozen=True)
class Pool:
    """Equal workers that each hold all models of a segment.

    Attributes:
        size: number of workers.
        num_cpus: CPUs of each.
        num_gpus: GPUs of each.
        memory: bytes of each.
    """

    size: int
    num_cpus: float
    num_gpus: float
    memory: int


def pool_for(asked: Sequence[OpResources], cluster: Cluster, most: int) -> Pool:
    """The pool for operators that run one after the other in the same workers.

    A worker needs the memory of all, the CPUs of the greediest, and one GPU for all shares of one,
    since a process works on a single GPU. Where operators do not say how many workers, as many as fit
    are made, less one CPU, which is left to other work.

    Args:
        asked: what each operator asks.
        cluster: what there is.
        most: the most workers that have something to do.

    Raises:
        UserError: the cluster does not hold the workers that are asked for.
    """
    gpu = 1.0 if cluster.total("GPU") else 0.0
    gpus = [gpu if one.num_gpus is None else one.num_gpus for one in asked]
    worker = Pool(
        size=1,
        num_cpus=max(one.num_cpus for one in asked),
        num_gpus=max(*gpus, min(1.0, sum(gpus))),
        memory=sum(one.memory for one in asked),
    )
    bundle = {"CPU": worker.num_cpus, "GPU": worker.num_gpus, "memory": worker.memory}
    fitting = sum(how_many(node, {name: amount for name, amount in bundle.items() if amount}) for node in cluster.nodes)
    wanted = min((one.workers for one in asked if one.workers is not None), default=None)
    if fitting < (wanted or 1):
        raise UserError(_refusal(worker, wanted or 1, fitting, cluster))
    if wanted is None and worker.num_cpus:
        fitting = min(fitting, max(1, int((cluster.total("CPU") - 1) / worker.num_cpus)))
    return Pool(min(wanted or fitting, most), worker.num_cpus, worker.num_gpus, worker.memory)


def _refusal(worker: Pool, wanted: int, fitting: int, cluster: Cluster) -> str:
    def text(cpus: float, gpus: float, memory: float) -> str:
        return f"{cpus:g} CPU, {gpus:g} GPU and {memory / (1 << 30):.1f} GB of memory"

    nodes = "; ".join(text(node.cpus, node.gpus, node.resources.get("memory", 0)) for node in cluster.nodes)
    return (
        f"the recipe's operators with a model ask for {wanted} worker{'s' if wanted > 1 else ''} with "
        f"{text(worker.num_cpus, worker.num_gpus, worker.memory)} each, the cluster holds {fitting} (its nodes have "
        f"{nodes}): lower the operators' num_proc, num_cpus, num_gpus or memory, or add nodes"
    )
