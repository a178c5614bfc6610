"""What a job's workers need, and the placement group that holds it for them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysandbox.core.errors import JobFailed
from raysandbox.core.scope import kept
from raysandbox.runtime.claims import CREWS, Owner, group_name, groups, held_text, others_of_run_hold
from raysandbox.runtime.polling import Patience
from raysandbox.runtime.session import Cluster, Node, cluster_summary, is_local

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

__all__ = [
    "Resources",
    "ask_for",
    "bundle",
    "gpus_in_reach",
    "held_workers",
    "holding",
    "how_many",
    "labels_fit",
    "look_at_wait",
    "most_workers",
    "placement_group_for",
    "resources_problem",
    "wait_for_room",
    "waited_in_vain",
]

_POLL_S = 0.5  # waiting inside Ray cannot be interrupted
_ROOM_S = 600.0  # that a recipe waits for room

logger = logging.getLogger(__name__)
_held: PlacementGroup | None = None  # by the trial that this process runs


class Resources(BaseModel):
    """The key `resources` of a job: what each of its workers needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_workers: int = Field(1, ge=1, description="how many workers the job runs on")
    num_gpus: float = Field(0, ge=0, description="GPUs of each worker; a fraction shares a GPU with other jobs")
    num_cpus: float = Field(1, ge=0, description="CPUs of each worker")
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="whether workers share nodes: as far as possible (PACK, SPREAD) or strictly"
    )
    accelerator_type: str | None = Field(None, description="kind of GPU, by Ray's name: A100, H100, …")
    label_selector: dict[str, str] = Field({}, description="labels that the workers' nodes must have")
    timeout_s: float = Field(600, gt=0, description="seconds to wait for resources that other work holds")

    @model_validator(mode="after")
    def _something_to_hold(self) -> Resources:
        if not self.num_cpus and not self.num_gpus:
            raise ValueError("num_cpus and num_gpus are both 0: a worker needs some of one")
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError("num_gpus above 1 must be a whole number")
        return self


def bundle(resources: Resources) -> dict[str, float]:
    """What one worker holds, by Ray's resource names."""
    wanted = {"CPU": resources.num_cpus, "GPU": resources.num_gpus}
    held = {name: amount for name, amount in wanted.items() if amount}
    if resources.accelerator_type:
        held[f"accelerator_type:{resources.accelerator_type}"] = 0.001
    return held


def resources_problem(resources: Resources, cluster: Cluster) -> str | None:
    """Why a cluster, all of it free, cannot hold what is asked; None when it can."""
    one = bundle(resources)
    nodes = [node for node in cluster.nodes if labels_fit(node, resources.label_selector)]
    if not nodes:
        return f"no node has the labels {resources.label_selector}"
    for name in one:
        largest = max(node.resources.get(name, 0.0) for node in nodes)
        if largest < one[name]:
            if name.startswith("accelerator_type:"):
                return f"no node has a GPU of type {resources.accelerator_type}"
            return f"a worker needs {one[name]:g} {name} on one node, the largest node has {largest:g}"
    fits = [how_many(node, one) for node in nodes]
    if not any(fits):
        return f"no single node has all of {_text(one)}"
    workers = resources.num_workers
    if resources.strategy == "STRICT_PACK" and max(fits) < workers:
        return f"STRICT_PACK needs {workers} workers on one node, the best node holds {max(fits)}"
    if resources.strategy == "STRICT_SPREAD" and sum(map(bool, fits)) < workers:
        return f"STRICT_SPREAD needs {workers} nodes that hold a worker each, there are {sum(map(bool, fits))}"
    if sum(fits) < workers:
        return f"{workers} workers are asked for, the cluster holds {sum(fits)}"
    return None


def labels_fit(node: Node, selector: Mapping[str, str]) -> bool:
    """Whether a node has the labels that a selector asks for."""
    return all(_label_fits(node.labels.get(key), wanted) for key, wanted in selector.items())


def _label_fits(value: str | None, wanted: str) -> bool:
    """Ray's operators: `x`, `!x`, `in(x,y)`, `!in(x,y)`."""
    negated, text = wanted.startswith("!"), wanted.removeprefix("!")
    inside = text.removeprefix("in(").removesuffix(")") if text.startswith("in(") else text
    return (value in [item.strip() for item in inside.split(",")]) != negated


def how_many(node: Node, one: Mapping[str, float]) -> int:
    """How many bundles a node holds when all of it is free; resources by Ray's names, none of them 0."""
    return min(_times(name, node.resources.get(name, 0.0), amount) for name, amount in one.items())


def _times(name: str, there: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a share is of one GPU: what two have left makes no third
        whole = int(there + 1e-9)  # and what is left of another one, where a part of the node is taken
        return whole * int(1 / amount + 1e-9) + int((there - whole) / amount + 1e-9)
    return int(there / amount + 1e-9)


@contextlib.contextmanager
def holding(group: PlacementGroup | None) -> Iterator[None]:
    """Lets the jobs of the block work in the bundles of a group instead of asking for their own.

    A trial that holds what its jobs need never waits for what other trials hold.
    """
    global _held
    _held = group
    try:
        yield
    finally:
        _held = None


def held_workers(resources: Resources) -> int | None:
    """How many of a job's workers fit into the bundles that this process holds; None when it holds none.

    Only the first bundles count, one after the other: a job's worker has the bundle of its number.
    """
    if _held is None:
        return None
    one = bundle(resources)
    fits = [all(spec.get(name, 0.0) >= amount for name, amount in one.items()) for spec in _held.bundle_specs]
    return next((number for number, fit in enumerate(fits) if not fit), len(fits))


def gpus_in_reach() -> float:
    """How many GPUs the jobs of this process may use: those that it holds, else the cluster's."""
    if _held is not None:
        return sum(spec.get("GPU", 0.0) for spec in _held.bundle_specs)
    return cluster_summary().total("GPU")


@contextlib.contextmanager
def placement_group_for(
    resources: Resources, timeout_s: float | None = None, owner: Owner | None = None
) -> Iterator[PlacementGroup]:
    """Holds one bundle per worker while the block runs.

    What a local Ray can never hold fails at once; a cluster may grow, and other work ends, so those
    are waited for. The time does not end while jobs of this run that work beside it hold something.

    Args:
        resources: what is asked.
        timeout_s: seconds to wait; `resources.timeout_s` by default.
        owner: whose it is.

    Raises:
        JobFailed: the message says what is asked, what there is, what is free and what is missing.
    """
    import ray.util

    if _held is not None:
        if (held_workers(resources) or 0) < resources.num_workers:
            raise JobFailed(_too_small(resources, _held))
        yield _held
        return
    owner = owner or Owner.new()
    group = ask_for(resources, owner)
    try:
        _wait(group, resources, timeout_s or resources.timeout_s, owner)
        yield group
    finally:
        ray.util.remove_placement_group(group)


def _too_small(resources: Resources, group: PlacementGroup) -> str:
    bundles = ", ".join(f"({_text(spec)})" for spec in group.bundle_specs)
    return (
        f"resources: {resources.num_workers} × ({_text(bundle(resources))}) do not fit into what the trial holds: "
        f"{bundles} (ask for less in the job's `resources`, or for more in `resources_per_trial`)"
    )


def ask_for(resources: Resources, owner: Owner) -> PlacementGroup:
    """A placement group that may still wait for its bundles; the caller removes it, or Ray when its driver ends.

    Raises:
        JobFailed: a local Ray can never hold it.
    """
    import ray.util

    if is_local():  # what a cluster lacks may still come
        cluster = cluster_summary()
        problem = resources_problem(resources, cluster)
        if problem:
            raise JobFailed(_refusal(resources, cluster, problem))
    kept(CREWS)[owner.crew] = True
    return ray.util.placement_group(
        [bundle(resources)] * resources.num_workers,
        strategy=resources.strategy,
        name=group_name(owner, resources.label_selector),
        bundle_label_selector=[resources.label_selector] * resources.num_workers,
    )


def waited_in_vain(resources: Resources, timeout_s: float) -> JobFailed:
    """The error after a wait: what is asked, what there is, what is free and what is missing."""
    cluster = cluster_summary()
    problem = resources_problem(resources, cluster) or f"other work holds what is missing, {held_text(groups())}"
    return JobFailed(_refusal(resources, cluster, f"{problem} (waited {timeout_s:g} s)"))


def most_workers(resources: Resources, cluster: Cluster) -> int:
    """How many workers a cluster, all of it free, holds."""
    one = bundle(resources)
    return sum(how_many(node, one) for node in cluster.nodes if labels_fit(node, resources.label_selector))


def _wait(group: Any, resources: Resources, timeout_s: float, owner: Owner) -> None:
    patience = Patience(timeout_s)
    while not group.wait(_POLL_S):  # waits: until its patience is over
        look_at_wait(patience, resources, owner)


def wait_for_room(job: str, *, num_cpus: float, num_gpus: float = 0) -> None:
    """Waits until the cluster has room for a worker that Ray places by itself, which it would await in silence.

    Raises:
        JobFailed: there was none within ten minutes; who holds what is said.
    """
    import ray
    import ray.util

    if not num_cpus and not num_gpus:
        return
    resources = Resources.model_validate({"num_cpus": num_cpus, "num_gpus": num_gpus, "timeout_s": _ROOM_S})
    free = ray.available_resources()
    if all(free.get(name, 0.0) >= amount for name, amount in bundle(resources).items()):
        return
    owner = Owner.new(job)
    group = ask_for(resources, owner)  # which also tells an autoscaler
    try:
        _wait(group, resources, resources.timeout_s, owner)
    finally:
        ray.util.remove_placement_group(group)


def look_at_wait(patience: Patience, resources: Resources, owner: Owner) -> None:
    """Called every now and then while a job waits for its workers: says who holds what.

    Raises:
        JobFailed: it was too long, and nobody else of the same run holds what is missing.
    """
    if patience.over:
        if not others_of_run_hold(owner):
            raise waited_in_vain(resources, patience.timeout_s)
        patience.begin()
    if not patience.tells():
        return
    asked = f"{resources.num_workers} × ({_text(bundle(resources))})"
    text = "%s has waited %.0f s for %s, held now: %s"
    logger.warning(text, f"job {owner.job}" if owner.job else "a job", patience.waited, asked, held_text(groups()))


def _refusal(resources: Resources, cluster: Cluster, problem: str) -> str:
    total = {name: cluster.total(name) for name in ("CPU", "GPU")}
    free = {name: cluster.free.get(name, 0.0) for name in ("CPU", "GPU")}
    nodes = f"{len(cluster.nodes)} node{'s' if len(cluster.nodes) != 1 else ''}"
    return (
        f"resources: {resources.num_workers} × ({_text(bundle(resources))}), {resources.strategy}, "
        f"cannot be had: {problem}; the cluster has {_text(total)} on {nodes}, free now: {_text(free)} "
        f"(ask for less in the job's `resources`, or add nodes)"
    )


def _text(amounts: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items() if not name.startswith("accelerator_"))
