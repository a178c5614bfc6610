"""How many workers with models a cluster holds, and of what size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
        note: what a person should know, "" for nothing.
    """

    size: int
    num_cpus: float
    num_gpus: float
    memory: int
    note: str = field(default="", compare=False)


def pool_for(asked: Sequence[OpResources], cluster: Cluster, most: int, held_cpus: float = 0) -> Pool:
    """The pool for operators that run one after the other in the same workers.

    A worker needs the memory of all, the CPUs of the greediest, and one GPU for all shares of one,
    since a process works on a single GPU. Where operators do not say how many workers, as many as fit
    are made. One CPU is left to other work: workers that take every CPU would wait for ever for whatever
    else is to run before them, so fewer or smaller ones are made where they would.

    Args:
        asked: what each operator asks.
        cluster: what there is.
        most: the most workers that have something to do.
        held_cpus: CPUs that placement groups hold: the workers of other jobs, trials.

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
    asked_for = min(wanted or fitting, most)
    return _leaving_a_cpu(replace(worker, size=asked_for), cluster.total("CPU"), held_cpus, said=wanted is not None)


def _leaving_a_cpu(pool: Pool, cpus: float, held: float, *, said: bool) -> Pool:
    """The pool, made so small that a CPU of the cluster, or half of its only one, stays free.

    Args:
        pool: as it is asked for.
        cpus: of the cluster.
        held: of them, by others.
        said: whether somebody asked for that many workers, and is told when there are fewer.
    """
    room = cpus - 1 if cpus > 1 else cpus / 2
    each = min(pool.num_cpus, room)
    size = pool.size if not each else max(1, min(pool.size, int((room - held) / each + 1e-9)))
    if each == pool.num_cpus and (size == pool.size or not said):
        return replace(pool, size=size)
    note = (
        f"operators with a model get {size} worker{'s' * (size > 1)} of {each:g} CPU, not {pool.size} of "
        f"{pool.num_cpus:g}: of the cluster's {cpus:g} CPUs others hold {held:g}, and one is left free"
    )
    return replace(pool, size=size, num_cpus=each, note=note)


def _refusal(worker: Pool, wanted: int, fitting: int, cluster: Cluster) -> str:
    def text(cpus: float, gpus: float, memory: float) -> str:
        return f"{cpus:g} CPU, {gpus:g} GPU and {memory / (1 << 30):.1f} GB of memory"

    nodes = "; ".join(text(node.cpus, node.gpus, node.resources.get("memory", 0)) for node in cluster.nodes)
    return (
        f"the recipe's operators with a model ask for {wanted} worker{'s' if wanted > 1 else ''} with "
        f"{text(worker.num_cpus, worker.num_gpus, worker.memory)} each, the cluster holds {fitting} (its nodes have "
        f"{nodes}): lower the operators' num_proc, num_cpus, num_gpus or memory, or add nodes"
    )
