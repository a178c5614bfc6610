"""What a trial holds while it runs, and how many trials run at the same time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysandbox.hpo.schema import Search
from raysandbox.runtime.placement import Resources, bundle
from raysandbox.runtime.session import Cluster
from raysandbox.sandbox.plan import ExperimentPlan

__all__ = ["Share", "patience", "share_of", "shown"]

_FOR_DATA = 1  # CPUs that no trial holds: Ray Data needs them to move at all


@dataclass(frozen=True)
class Share:
    """What the cluster gives to trials.

    Attributes:
        bundles: of one trial, for its jobs' workers; empty where no job has workers, or where jobs ask for
            their own.
        strategy: how the bundles are placed.
        concurrent: how many trials run at the same time.
        note: what a person should know, "" for nothing.
        problem: why no trial can ever run, "" where one can.
    """

    bundles: tuple[Mapping[str, float], ...]
    strategy: str
    concurrent: int
    note: str = ""
    problem: str = ""


def share_of(search: Search, plan: ExperimentPlan, cluster: Cluster) -> Share:
    """Bundles that hold the workers of every job of a trial, and how many trials the cluster holds at once.

    At least one CPU stays outside of all trials, or Ray Data would wait for ever: where one trial alone would
    leave none, trials run one after the other and each job asks for its own resources.

    Args:
        search: may say both.
        plan: of the experiment.
        cluster: all of it counts as free.
    """
    wanted = search.resources_per_trial or _needed(plan, cluster)
    strategy = next((job.strategy for job in _worker_jobs(plan) if job.num_workers > 1), "PACK")
    # The driver's machine runs the trials' own processes, on the CPUs that this process may use.
    own = max(1, int(min(len(os.sched_getaffinity(0)), cluster.total("CPU"))))
    if any(job.label_selector for job in _worker_jobs(plan)):
        note = "jobs with a label_selector ask for their own workers: trials reserve none"
        return Share((), strategy, search.max_concurrent or 1, note)
    if not wanted:
        return Share((), strategy, search.max_concurrent or own)
    if missing := _missing(wanted, strategy, cluster):
        # What jobs ask for themselves they are refused themselves, or wait for: a cluster may grow.
        said = f"resources_per_trial asks for more than there is: {missing}" if search.resources_per_trial else ""
        return Share((), strategy, 1, "" if said else f"what jobs ask for is more than there is: {missing}", said)
    room = int(cluster.total("CPU") - _FOR_DATA + 1e-9)
    most = min(
        [
            int((room if name == "CPU" else cluster.total(name)) / amount + 1e-9)
            for name, amount in _sums(wanted).items()
            if amount and (name == "CPU" or name == "GPU")
        ]
        or [own]
    )
    if most < 1:
        total = ", ".join(f"{amount:g} {name}" for name, amount in _sums(wanted).items())
        note = (
            f"a trial's workers ({total}) leave no CPU of {cluster.total('CPU'):g} to Ray Data: "
            f"one trial at a time, whose jobs ask for their workers one after the other"
        )
        return Share((), strategy, 1, note)
    note = ""
    if search.max_concurrent and most < search.max_concurrent:
        note = f"{most} trials at a time: the cluster holds the workers of no more, with a CPU left for Ray Data"
    return Share(tuple(wanted), strategy, min(search.max_concurrent or most, most), note)


def _worker_jobs(plan: ExperimentPlan) -> list[Resources]:
    return [Resources.model_validate(job.entry.config.resources) for job in plan.jobs if job.hook.uses_workers]


def _needed(plan: ExperimentPlan, cluster: Cluster) -> list[Mapping[str, float]]:
    """The most that any job's worker of each number holds."""
    needed: list[dict[str, float]] = []
    for resources in _worker_jobs(plan):
        one = bundle(resources)
        if "num_gpus" not in resources.model_fields_set and cluster.total("GPU") >= 1:
            one["GPU"] = 1.0  # workers take a GPU each where there are some, see `runtime.unit_workers`
        for number in range(resources.num_workers):
            if number == len(needed):
                needed.append({})
            for name, amount in one.items():
                needed[number][name] = max(needed[number].get(name, 0.0), amount)
    return list(needed)


def _missing(bundles: Sequence[Mapping[str, float]], strategy: str, cluster: Cluster) -> str:
    """Why a cluster, all of it free, cannot hold the bundles, which Tune would wait for without end; "" if it can."""
    together = [_sums(bundles)] if strategy == "STRICT_PACK" else sorted(bundles, key=lambda b: -sum(b.values()))
    nodes = [dict(node.resources) for node in cluster.nodes]
    for wanted in together:
        fits = [n for n in nodes if all(n.get(name, 0.0) >= amount - 1e-9 for name, amount in wanted.items())]
        node = min(fits, key=lambda n: sum(n[name] for name in wanted), default=None)  # the tightest leaves most room
        if node is None:
            names = dict.fromkeys(name for each in bundles for name in each)
            has = ", ".join(f"{cluster.total(name):g} {name}" for name in names)
            number = len(cluster.nodes)
            return f"{shown(bundles)}, {strategy}, on {number} node{'s' * (number != 1)} with {has} together"
        if strategy == "STRICT_SPREAD":
            nodes.remove(node)
        else:
            node |= {name: node[name] - amount for name, amount in wanted.items()}
    return ""


def shown(bundles: Sequence[Mapping[str, float]]) -> str:
    """Bundles in words."""
    return " and ".join("(" + ", ".join(f"{each[name]:g} {name}" for name in each) + ")" for each in bundles)


def patience(plan: ExperimentPlan) -> float:
    """Seconds that a job of the experiment waits for its workers: trials, which hold them, wait as long."""
    return max((job.timeout_s for job in _worker_jobs(plan)), default=Resources.model_validate({}).timeout_s)


def _sums(bundles: Sequence[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for each in bundles:
        for name, amount in each.items():
            sums[name] = sums.get(name, 0.0) + amount
    return sums
